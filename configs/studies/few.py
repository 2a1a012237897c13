# Few defects: what a first network that has seen five defects can still say. Beside its saliency it remembers good images:
# patches are far from them by its own features, or by those of random weights. --set data.num_positives=5,10,None
_base_ = './ksdd_avg.py'

_slim = dict(type='kgl_mm.SlimVGG', convs=(1, 1, 1, 1), out_indices=(1, 2, 3))
_patches = dict(type='kgl_mm.PatchMemorySource', k=5, depth=2, max_patches=5000)
_sources = dict(
    patches=_patches,
    patches_random=dict(_patches, network=dict(_slim, init_cfg=dict(type='Kaiming', layer='Conv2d'))),
)
_write = [dict(type='kgl_mm.PriorGenerationHook', method=source, layer=name) for name, source in _sources.items()]
stages = dict(stage1=dict(custom_hooks=[*_base_.stages.stage1.custom_hooks, *_write]))

_layer = 'train_dataloader.dataset.pipeline.3.layer'
_insist, _small = {'custom_hooks.0.insist': True}, {'train_dataloader.dataset.pipeline.4.max_area': 0.03}
variants = {name: {_layer: name, **_insist} for name in _sources}
variants.update(
    patches_small={_layer: 'patches', **_insist, **_small},
    guided_small={**_insist, **_small},
    # the network that patches have guided looks more narrowly than they do
    patches_then_saliency={
        'stages.stage2': {
            _layer: 'patches_random',
            'custom_hooks': [dict(type='kgl_mm.GuidanceHook', insist=True), dict(type='kgl_mm.PriorGenerationHook')],
        },
        'stages.stage3': {**_insist},
    },
)
