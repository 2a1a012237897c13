# KolektorSDD at a size that two cores train in minutes, for reduced tables; clean folds, since figures are compared.
_base_ = [
    './_base_/models/slim_vgg.py',
    './_base_/datasets/ksdd.py',
    './_base_/default_runtime.py',
]

model = dict(backbone=dict(convs=(2, 2, 2, 2)))
load = [*_base_.load[:-1], dict(type='Resize', scale=(192, 528))]
dataset = dict(protocol='clean', cache='memory')
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, pipeline=[*load, *_base_.flips, *_base_.pack]),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, pipeline=[*load, *_base_.pack]),
)

epochs = 40
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=epochs, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=epochs)
test_cfg = dict()
default_hooks = dict(checkpoint=dict(interval=10))
