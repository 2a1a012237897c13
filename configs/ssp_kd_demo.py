# A detector that learns from good parts alone, on the embedded data set, below 5 minutes on two cores. Its teacher is
# random, as nothing may be downloaded; a better one: _base_/detector.py.
_base_ = [
    './_base_/models/ssp_kd_slim_vgg.py',
    './_base_/datasets/synthetic.py',
    './_base_/schedules/adam_cosine.py',
    './_base_/default_runtime.py',
]

train_dataloader = dict(**_base_.good_alone)
optim_wrapper = dict(optimizer=dict(lr=0.003))
train_cfg = dict(max_epochs=20)
default_hooks = dict(checkpoint=dict(interval=10))
