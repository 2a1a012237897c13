# FCOS on NEU-DET, from what AGDP left (load_from) or from scratch; docs/detection.md has the commands.
_base_ = [
    '../_base_/models/fcos_resnet50.py',
    '../_base_/datasets/neu_det.py',
    '../_base_/schedules/boxes_sgd.py',
    '../_base_/default_runtime.py',
]

model = dict(num_classes=6)
# load_from = 'work_dirs/agdp_fcos_resnet50/stage1/epoch_10.pth'
