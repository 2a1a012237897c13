# A small network, twenty defective images, a minute on two cores: `make demo`.
_base_ = [
    './_base_/models/slim_vgg.py',
    './_base_/datasets/synthetic.py',
    './_base_/schedules/sgd_cosine.py',
    './_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.03))
train_cfg = dict(max_epochs=60)
custom_hooks = [dict(type='kgl_mm.PriorGenerationHook', batch_size=16, fraction=1.0)]
default_hooks = dict(checkpoint=dict(interval=10))
