# Drawn on first use into data/synthetic_surface: 400 training images, of which few defective ones are used, and 240 test images.
data_preprocessor = dict(mean=[125.0] * 3, std=[25.0] * 3, to_rgb=True)
load = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.LoadMask')]
flips = [dict(type='RandomFlip', prob=0.5, direction='horizontal'), dict(type='RandomFlip', prob=0.5, direction='vertical')]
pack = [dict(type='kgl_mm.PackDefect')]
dataset = dict(
    type='kgl_mm.SyntheticSurface',
    size=(64, 128),
    num_train=(200, 200),
    num_test=(180, 60),
    difficulty=0.2,
    cache='memory',
)

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(**dataset, split='train', num_positives=20, pipeline=[*load, *flips, *pack]),
    sampler=dict(type='kgl_mm.BalancedSampler'),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(**dataset, split='test', pipeline=[*load, *pack]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_evaluator = dict(type='kgl_mm.DefectMetric')
