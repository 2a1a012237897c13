# Enough test images to see small differences: 2,000 of the embedded surfaces, and few defective ones to learn from
# (--set data.num_positives=5,10,20,50). Every epoch has 100 images or more, so that few learn about as long.
_base_ = '../kgl_demo.py'

dataset = dict(difficulty=0.2, num_val=(450, 150), num_test=(1500, 500))
train_dataloader = dict(dataset=dataset, sampler=dict(at_least=100))
test_dataloader = dict(batch_size=50, dataset=dataset)
val_dataloader = dict(
    batch_size=50,
    num_workers=0,
    dataset={**_base_.test_dataloader.dataset, **dataset, 'split': 'val'},
    sampler=_base_.test_dataloader.sampler,
)
val_evaluator = dict(type='kgl_mm.DefectMetric', threshold_aim='f1')
val_cfg = dict()

_schedule = dict(
    train_cfg=dict(max_epochs=40, val_interval=40),
    default_hooks=dict(checkpoint=dict(interval=40)),
)
train_cfg, default_hooks = _schedule['train_cfg'], _schedule['default_hooks']
stages = dict(stage1=_schedule)

_load, _target = 'train_dataloader.dataset.pipeline.2', 'train_dataloader.dataset.pipeline.3'
_weight, _insist = 'model.head.loss.seg_weight', {'custom_hooks.0.insist': True}
_masks = {f'{_target}.num_priors': 0, f'{_target}.num_masks': None}
variants = dict(
    plain={'only': 'stage1'},
    head={_weight: 0, 'model.head.seg_gradient': 0.0},
    head_open={_weight: 0},
    guided={},
    guided_open=_insist,
    guided_stopped={**_insist, 'model.head.seg_gradient': 0.0},
    wrong_open={f'{_load}.wrong': True, **_insist},
    masks_open=_masks,
    masks_stopped={**_masks, 'model.head.seg_gradient': 0.0},
)
