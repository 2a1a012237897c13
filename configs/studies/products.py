# Targets that are products of maps (docs/benchmarks.md): beside guided_open, of the same first stage.
_base_ = './ksdd_avg.py'

_mean, _full = dict(type='kgl_mm.LayerCAM', fuse='mean'), dict(type='kgl_mm.FullGrad')
_methods = dict(
    layer_mean=_mean,
    product=dict(type='kgl_mm.SaliencyProduct'),
    sharp=dict(type='kgl_mm.SaliencyProduct', methods=[_mean, _full, _full]),
)
_write = [dict(type='kgl_mm.PriorGenerationHook', method=method, layer=name) for name, method in _methods.items()]
stages = dict(stage1=dict(custom_hooks=[*_base_.stages.stage1.custom_hooks, *_write]))

variants = {
    name: {'train_dataloader.dataset.pipeline.3.layer': name, 'custom_hooks.0.insist': True} for name in _methods
}
