# A folder of pictures at a size that two cores train in minutes.
_base_ = [
    './_base_/models/slim_vgg.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/sgd_cosine.py',
    './_base_/default_runtime.py',
]

# the poolings of vgg16_folder.py
model = dict(backbone=dict(convs=(2, 2, 2, 2)), neck=dict(mode='max_avg'), head=dict(in_channels=128))
load = [*_base_.load[:-1], dict(type='kgl_mm.Resize', scale=(256, 256))]
_small = dict(batch_size=8, num_workers=0, persistent_workers=False)
_look = dict(**_small, dataset=dict(cache='memory', pipeline=[*load, *_base_.pack]))
train_dataloader = dict(**_small, dataset=dict(cache='memory', pipeline=[*load, *_base_.flips, *_base_.pack]))
val_dataloader = _look
test_dataloader = _look
