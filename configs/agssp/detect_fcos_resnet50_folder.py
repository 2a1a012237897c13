# FCOS on one's own boxes: --data DIR --cfg-options model.num_classes=N, from what AGDP left (load_from) or from scratch.
_base_ = [
    '../_base_/models/fcos_resnet50.py',
    '../_base_/datasets/voc_folder.py',
    '../_base_/schedules/boxes_sgd.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(checkpoint=dict(save_best='mAP_50'))
# load_from = 'work_dirs/agdp_fcos_resnet50/stage1/epoch_10.pth'
