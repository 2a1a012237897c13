# A Swin-B learns to look where maps are, and to tell categories apart: model.head.num_classes is their number.
_base_ = ['../_base_/datasets/categories.py', '../_base_/pretraining.py', '../_base_/default_runtime.py']

model = dict(
    type='kgl_mm.AnomalyGuidedPretrainer',
    backbone=dict(
        type='SwinTransformer', arch='base', img_size=224, out_indices=(3,), pad_small_map=True, frozen_stages=-1
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=1024, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
    distill=dict(**_base_.distill, loss_weight=2.0),
    task_weight=0.1,  # in AGSSP's own config of Swin-B it is 0
)

# The schedule of AGSSP, whose batches are of 640 images: the learning rate goes with their size, here 64.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4 * 64 / 512, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=20, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=200)
default_hooks = dict(checkpoint=dict(interval=10))
