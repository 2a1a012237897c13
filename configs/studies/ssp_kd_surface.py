# What each part of a detector of good parts adds, on the surfaces of ../ssp_kd_demo.py, with half as many to validate
# and to test with as in surface_many.py.
_base_ = [
    '../_base_/detector_variants.py',
    '../_base_/datasets/synthetic.py',
    '../_base_/schedules/adam_cosine.py',
    '../_base_/default_runtime.py',
]

dataset = dict(num_val=(225, 75), num_test=(750, 250))
train_dataloader = dict(batch_size=8, dataset=dict(**dataset, num_positives=0), sampler=_base_.good_alone.sampler)
test_dataloader = dict(batch_size=50, dataset=dataset)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    dataset={**_base_.test_dataloader.dataset, **dataset, 'split': 'val'},
    sampler=_base_.test_dataloader.sampler,
)
val_evaluator = dict(type='kgl_mm.DefectMetric', threshold_aim='f1')
val_cfg = dict()

optim_wrapper = dict(optimizer=dict(lr=0.003))
train_cfg = dict(max_epochs=30, val_interval=30)
default_hooks = dict(checkpoint=dict(interval=30))
