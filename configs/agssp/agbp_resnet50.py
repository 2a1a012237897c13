# A ResNet-50 learns to look where maps are, and to tell categories apart: model.head.num_classes is their number.
_base_ = ['../_base_/datasets/categories.py', '../_base_/pretraining.py', '../_base_/default_runtime.py']

model = dict(
    type='kgl_mm.AnomalyGuidedPretrainer',
    backbone=dict(type='ResNet', depth=50, num_stages=4, out_indices=(2, 3), style='pytorch', frozen_stages=-1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=2048, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
    distill=_base_.distill,
    task_weight=0.1,
)

# The schedule of AGSSP for 120,000 images in batches of 1024. One's own are fewer, in batches of 64: the learning rate
# is the same, as that from which a pretrained network is usually taught on.
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='MultiStepLR', milestones=[60, 90, 180], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=200)
default_hooks = dict(checkpoint=dict(interval=10))
