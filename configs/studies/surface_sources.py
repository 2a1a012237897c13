# Hard surfaces: maps that no label of a defect has taught, beside saliency (guided_open) and masks (masks_open). Good parts
# carry marks as strong as defects, so all of them are remembered, and the drawings are put into words that say the difference.
_base_ = ['./surface_many.py', '../_base_/detector.py']

_slim = dict(type='kgl_mm.SlimVGG', convs=(1, 1, 1, 1), out_indices=(1, 2, 3))
_random = dict(_slim, init_cfg=dict(type='Kaiming', layer='Conv2d'))
_patches = dict(type='kgl_mm.PatchMemorySource', k=200, depth=2)
_words = [
    'metal surface with crack defect, it appears as a clear dark jagged line, moderately wide',
    'metal surface with scratch defect, it appears as a clear bright vertical line, moderately wide',
    'metal surface with pit defect, it appears as a clear dark spot, small, with ragged edges',
    'metal surface with stain defect, it appears as a faint dark oval spot, medium, with ragged edges',
]
_sources = dict(
    patches=_patches,
    patches_random=dict(_patches, network=_random),
    metal=dict(type='kgl_mm.DescriptionSource', descriptions='metal'),
    words=dict(type='kgl_mm.DescriptionSource', descriptions=_words),
)
_write = [dict(type='kgl_mm.PriorGenerationHook', method=source, layer=name) for name, source in _sources.items()]
stages = dict(stage1=dict(custom_hooks=[*_base_.stages.stage1.custom_hooks, *_write]))

_good = dict(
    _base_.from_good,
    model=dict(_base_.detector, _delete_=True, student=_random, teacher=_random),
    optim_wrapper=dict(_delete_=True, optimizer=dict(type='Adam', lr=0.003)),
    train_cfg=dict(max_epochs=30, val_interval=30),
    default_hooks=dict(checkpoint=dict(interval=30)),
    train_dataloader=dict(
        dataset=dict(num_positives=0, pipeline=[*_base_.load, *_base_.flips, *_base_.pack]),
        sampler=_base_.good_alone.sampler,
    ),
)
_insist = {'custom_hooks.0.insist': True}
variants = {name: {'train_dataloader.dataset.pipeline.2.layer': name, **_insist} for name in _sources}
variants['good_random'] = {'stages': dict(_delete_=True, stage1=_good, stage2={}), **_insist}
