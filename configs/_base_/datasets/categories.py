# Images without labels, one folder a category, and a store of their maps: --data DIR --priors DIR. Whole images are
# brought to one size, as maps are made of them. A part of 5 to 77 % of that, at 224 pixels, is what AGSSP crops from
# images that it resizes to 0.5 to 2 times 512, in one step.
size = 512
crop = 224
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
load = [
    dict(type='LoadImageFromFile'),
    dict(type='kgl_mm.Resize', scale=(size, size)),
    dict(type='kgl_mm.LoadPrior'),
]
augment = [
    dict(type='RandomResizedCrop', scale=crop, crop_ratio_range=(0.05, 0.77)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    dataset=dict(
        type='kgl_mm.CategoryFolder',
        data_root='data/categories',
        pipeline=[*load, *augment, dict(type='kgl_mm.PackDefect')],
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
