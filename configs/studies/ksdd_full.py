# KolektorSDD at the size of arXiv 2605.17780, with its settings, on clean folds, in bfloat16.
_base_ = ['../kgl_vgg16_ksdd.py', '../_base_/variants.py']

model = dict(head=dict(seg_gradient=0.0))
train_cfg = dict(val_interval=50)
default_hooks = dict(checkpoint=dict(interval=50))
train_dataloader = dict(dataset=dict(protocol='clean'))
test_dataloader = dict(dataset=dict(protocol='clean'))
optim_wrapper = dict(type='kgl_mm.Bf16OptimWrapper')
stages = dict(
    stage1=dict(
        custom_hooks=[dict(type='kgl_mm.PriorGenerationHook', method=dict(type='kgl_mm.LayerCAM', amp='bfloat16'))]
    )
)
