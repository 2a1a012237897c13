# Guidance by source: the last stage is that of ksdd_avg.py, and what its priors come from varies. The classifier of the
# first stage writes a layer for each source that needs no training; saliency is guided_open, masks_open the ceiling.
# Few defects: --set data.num_positives=5,10,None. Detectors see none, so all these share them; they look at half the size.
_base_ = ['./ksdd_avg.py', '../_base_/detector.py']

_part = dict(val_fraction=0.3)
train_dataloader = dict(dataset=_part)
test_dataloader = dict(dataset=_part)
val_dataloader = {**_base_.test_dataloader, 'dataset': {**_base_.test_dataloader.dataset, **_part, 'split': 'val'}}
val_evaluator = dict(type='kgl_mm.DefectMetric', threshold_aim='f1')
val_cfg = dict()
default_hooks = dict(channels_last=dict(type='kgl_mm.ChannelsLastHook'))

_slim = dict(type='kgl_mm.SlimVGG', convs=(1, 1, 1, 1), out_indices=(1, 2, 3))
_trained = dict(type='Pretrained', checkpoint='work_dirs/neu_teacher/stage1/epoch_20.pth', prefix='backbone.')
_random = dict(_slim, init_cfg=dict(type='Kaiming', layer='Conv2d'))
_networks = dict(random=_random, neu=dict(_slim, init_cfg=_trained))
_patches = dict(type='kgl_mm.PatchMemorySource', k=5, depth=2, max_patches=5000)
_sources = dict(descriptions=dict(type='kgl_mm.DescriptionSource', descriptions='metal'))
_sources.update({f'patches_{name}': dict(_patches, network=network) for name, network in _networks.items()})
_write = [dict(type='kgl_mm.PriorGenerationHook', method=source, layer=name) for name, source in _sources.items()]
stages = dict(stage1=dict(custom_hooks=[*_base_.stages.stage1.custom_hooks, *_write]))

_half = [*_base_.load[:-1], dict(type='kgl_mm.Resize', scale=(96, 264))]
_look = dict(dataset=dict(num_positives=None, pipeline=[*_half, *_base_.pack]))
_good = dict(
    _base_.from_good,
    optim_wrapper=dict(_delete_=True, optimizer=dict(type='Adam', lr=0.003)),
    train_cfg=dict(max_epochs=20, val_interval=20),
    default_hooks=dict(checkpoint=dict(interval=20)),
    train_dataloader=dict(
        dataset=dict(num_positives=0, pipeline=[*_half, *_base_.flips, *_base_.pack]),
        sampler=_base_.good_alone.sampler,
    ),
    test_dataloader=_look,
    val_dataloader=_look,
)
_detector = dict(_base_.detector, _delete_=True, student=_random)
_insist = {'custom_hooks.0.insist': True}
variants = {name: {'train_dataloader.dataset.pipeline.3.layer': name, **_insist} for name in _sources}
for _name, _teacher in _networks.items():
    _stage1 = dict(_good, model=dict(_detector, teacher=_teacher))
    variants[f'good_{_name}'] = {'stages': dict(_delete_=True, stage1=_stage1, stage2={}), **_insist}
