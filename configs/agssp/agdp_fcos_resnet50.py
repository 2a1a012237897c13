# AGDP of FCOS, as AGSSP does it: 10 epochs on pseudo-boxes. Its commands are in docs/detection.md.
_base_ = [
    '../_base_/models/fcos_resnet50.py',
    '../_base_/datasets/pseudo_boxes.py',
    '../_base_/schedules/boxes_sgd.py',
    '../_base_/agdp.py',
    '../_base_/default_runtime.py',
]

model = dict(freeze_backbone=True, backbone=dict(init_cfg=_base_.backbone_weights))
train_cfg = dict(max_epochs=10)
