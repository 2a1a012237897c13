# What all data sets share; each adds its own class, size and pipeline.
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
load = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.LoadMask')]
flips = [
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
]
pack = [dict(type='kgl_mm.PackDefect')]

train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(split='train'),
    sampler=dict(type='kgl_mm.BalancedSampler', at_least=32),  # few defects are seen more often, not for fewer steps
)
test_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_evaluator = dict(type='kgl_mm.DefectMetric')
