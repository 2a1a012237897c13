# What each part of a detector of good parts adds, on KolektorSDD at half the size of ../slim_vgg_ksdd.py.
_base_ = [
    '../_base_/detector_variants.py',
    '../_base_/datasets/ksdd.py',
    '../_base_/schedules/adam_cosine.py',
    '../_base_/default_runtime.py',
]

load = [*_base_.load[:-1], dict(type='kgl_mm.Resize', scale=(96, 264))]
dataset = dict(protocol='clean', cache='memory')
_loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **_loader,
    batch_size=8,
    dataset=dict(**dataset, num_positives=0, pipeline=[*load, *_base_.flips, *_base_.pack]),
    sampler=_base_.good_alone.sampler,
)
test_dataloader = dict(**_loader, batch_size=8, dataset=dict(**dataset, pipeline=[*load, *_base_.pack]))

optim_wrapper = dict(optimizer=dict(lr=0.003))
train_cfg = dict(max_epochs=20, val_interval=20)
default_hooks = dict(checkpoint=dict(interval=20))
