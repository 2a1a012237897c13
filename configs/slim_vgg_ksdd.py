# KolektorSDD at a size that two cores train in minutes, for reduced tables; clean folds, since figures are compared.
_base_ = [
    './_base_/models/slim_vgg.py',
    './_base_/datasets/ksdd.py',
    './_base_/schedules/sgd_cosine.py',
    './_base_/default_runtime.py',
]

model = dict(backbone=dict(convs=(2, 2, 2, 2)))
load = [*_base_.load[:-1], dict(type='kgl_mm.Resize', scale=(192, 528))]
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
default_hooks = dict(checkpoint=dict(interval=10))
