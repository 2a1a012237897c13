# The network of kgl_demo.py learns to look where maps of the embedded surfaces are, in a minute or two on two cores. No
# label is used. The maps come from any source: --priors DIR.
_base_ = [
    '../_base_/models/slim_vgg.py',
    '../_base_/datasets/synthetic.py',
    '../_base_/schedules/sgd_cosine.py',
    '../_base_/pretraining.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='kgl_mm.AnomalyGuidedPretrainer',
    backbone=dict(out_indices=(2, 3)),
    neck=None,
    head=None,
    distill=_base_.distill,
)
load = [dict(type='LoadImageFromFile'), dict(type='kgl_mm.LoadPrior')]
train_dataloader = dict(
    batch_size=16,
    dataset=dict(num_positives=None, pipeline=[*load, *_base_.flips, *_base_.pack]),
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
)
test_dataloader = test_evaluator = test_cfg = None
train_cfg = dict(max_epochs=15)
default_hooks = dict(checkpoint=dict(interval=10))
