# A small network, twenty defective images, a minute on two cores: `make demo`.
_base_ = [
    './_base_/models/slim_vgg.py',
    './_base_/datasets/synthetic.py',
    './_base_/default_runtime.py',
]

epochs = 60
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=epochs, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=epochs)
test_cfg = dict()
default_hooks = dict(checkpoint=dict(interval=10))
