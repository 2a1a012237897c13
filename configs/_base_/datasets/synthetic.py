# Drawn on first use into data/synthetic_surface: 400 training images, of which few defective ones are used, and 240 test images.
_base_ = './common.py'

data_preprocessor = dict(mean=[125.0] * 3, std=[25.0] * 3, to_rgb=True)
dataset = dict(
    type='kgl_mm.SyntheticSurface',
    size=(64, 128),
    num_train=(200, 200),
    num_test=(180, 60),
    difficulty=0.1,
    cache='memory',
)
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **loader,
    batch_size=8,
    dataset=dict(**dataset, num_positives=20, pipeline=[*_base_.load, *_base_.flips, *_base_.pack]),
)
test_dataloader = dict(**loader, batch_size=16, dataset=dict(**dataset, pipeline=[*_base_.load, *_base_.pack]))
