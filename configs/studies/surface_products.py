# Targets that are products of maps, on surfaces, beside guided_open, of the same first stage.
_base_ = './surface_many.py'

_methods = dict(
    largest=dict(type='kgl_mm.LayerCAM'),
    product=dict(type='kgl_mm.SaliencyProduct'),
)
_write = [dict(type='kgl_mm.PriorGenerationHook', method=method, layer=name) for name, method in _methods.items()]
stages = dict(stage1=dict(custom_hooks=[*_base_.stages.stage1.custom_hooks, *_write]))

variants = {
    name: {'train_dataloader.dataset.pipeline.2.layer': name, 'custom_hooks.0.insist': True} for name in _methods
}
