# What data sets of boxes share; each adds its own class, size and pipeline. Images keep their proportions.
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
load = [dict(type='LoadImageFromFile')]
flips = [dict(type='RandomFlip', prob=0.5)]
pack = [dict(type='kgl_mm.PackBoxes')]

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(split='train'),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_evaluator = dict(type='kgl_mm.BoxMetric')
