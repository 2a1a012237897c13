# Guidance by source: the last stage is that of ksdd_avg.py, and what its priors come from varies. The classifier of the
# first stage writes a layer for each source that needs no training of its own; saliency is guided_open, and masks_open
# the ceiling. Few defects: --set data.num_positives=5,10,None. Detectors look at half the size, as in ssp_kd_ksdd.py.
_base_ = ['./ksdd_avg.py', '../_base_/detector.py']

_write = dict(type='kgl_mm.PriorGenerationHook')
_slim = dict(type='kgl_mm.SlimVGG', convs=(1, 1, 1, 1), out_indices=(1, 2, 3))
_random = dict(type='Kaiming', layer='Conv2d')
_neu = dict(type='Pretrained', checkpoint='work_dirs/neu_teacher/stage1/epoch_20.pth', prefix='backbone.')
_patches = dict(type='kgl_mm.PatchMemorySource', network=dict(_slim, init_cfg=_random), k=5, depth=2, max_patches=5000)
_drawn = dict(type='kgl_mm.DescriptionSource', descriptions='metal')
_hooks = [
    *_base_.stages.stage1.custom_hooks,
    dict(_write, method=_patches, layer='patches'),
    dict(_write, method=_drawn, layer='descriptions'),
]
stages = dict(stage1=dict(custom_hooks=_hooks))

_half = [*_base_.load[:-1], dict(type='kgl_mm.Resize', scale=(96, 264))]
_good = dict(
    _base_.from_good,
    optim_wrapper=dict(_delete_=True, optimizer=dict(type='Adam', lr=0.003)),
    train_cfg=dict(max_epochs=20, val_interval=20),
    default_hooks=dict(checkpoint=dict(interval=20)),
    train_dataloader=dict(
        batch_size=8,
        dataset=dict(num_positives=0, pipeline=[*_half, *_base_.flips, *_base_.pack]),
        sampler=_base_.good_alone.sampler,
    ),
    test_dataloader=dict(dataset=dict(pipeline=[*_half, *_base_.pack])),
)
_layer, _insist = 'train_dataloader.dataset.pipeline.3.layer', {'custom_hooks.0.insist': True}
_teacher = {name: dict(_slim, init_cfg=init) for name, init in (('random', _random), ('neu', _neu))}
_parts = dict(_base_.detector, _delete_=True, student=_teacher['random'])
_model = {name: dict(_parts, teacher=teacher) for name, teacher in _teacher.items()}
_network = 'stages.stage1.custom_hooks.1.method.network'
variants = dict(
    patches={_layer: 'patches', **_insist},
    patches_neu={_layer: 'patches', f'{_network}.init_cfg': dict(_neu, _delete_=True), **_insist},
    descriptions={_layer: 'descriptions', **_insist},
    good={'stages': dict(_delete_=True, stage1=dict(_good, model=_model['random']), stage2={}), **_insist},
    good_neu={'stages': dict(_delete_=True, stage1=dict(_good, model=_model['neu']), stage2={}), **_insist},
)
