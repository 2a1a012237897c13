# The rows of docs/benchmarks.md where both stages pool by the average, at a size that two cores train in minutes.
_base_ = ['../kgl_slim_vgg_ksdd.py', '../_base_/variants.py']

train_cfg = dict(max_epochs=60, val_interval=60)
default_hooks = dict(checkpoint=dict(interval=60))
train_dataloader = dict(sampler=dict(at_least=0))  # tables say where it is 32, as elsewhere
optim_wrapper = dict(type='kgl_mm.Bf16OptimWrapper')  # faster where a processor has instructions for it
model = dict(head=dict(pooling='avg'))

variants = dict(
    plain_long={'only': 'stage1', 'stages.stage1.train_cfg': dict(max_epochs=120, val_interval=120)},
    consistency={
        'model': dict(type='kgl_mm.ConsistentClassifier', **_base_.stages.stage1.model),
        'stages.stage1.model.type': 'ImageClassifier',
        'custom_hooks.0.insist': True,
    },
)
