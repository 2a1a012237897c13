# NEU-DET: six kinds of defect, none good, few images of each (--set data.num_positives=30,120: 5 and 20 of each kind);
# a map is that of what a network takes its image for.
_base_ = [
    '../_base_/models/slim_vgg.py',
    '../_base_/datasets/common.py',
    '../_base_/schedules/sgd_cosine.py',
    '../_base_/default_runtime.py',
    '../_base_/guided.py',
    '../_base_/variants.py',
]

load = [*_base_.load, dict(type='kgl_mm.Resize', scale=(200, 200))]
dataset = dict(type='kgl_mm.NEUDet', val_fraction=0.2, cache='memory')
plain = [*load, *_base_.flips, *_base_.pack]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, pipeline=[*load, *_base_.priors, *_base_.flips, *_base_.pack]),
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
)
test_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(**dataset, pipeline=[*load, *_base_.pack]),
)
val_dataloader = dict(test_dataloader, dataset=dict(test_dataloader['dataset'], split='val'))
val_dataloader['sampler'] = _base_.test_dataloader.sampler
val_evaluator = dict(type='kgl_mm.DefectMetric')
val_cfg = dict()

train_cfg = dict(max_epochs=60, val_interval=60)
default_hooks = dict(checkpoint=dict(interval=60))
model = dict(neck=None, head=dict(_delete_=True, in_channels=64, **{**_base_.guided_head, 'num_classes': 6}))

stages = dict(
    stage1=dict(
        model=dict(neck=dict(_delete_=True, **_base_.model.neck), head=dict(_delete_=True, **_base_.model.head)),
        train_dataloader=dict(dataset=dict(pipeline=plain)),
        custom_hooks=[dict(type='kgl_mm.PriorGenerationHook', method=dict(type='kgl_mm.LayerCAM', target='predicted'))],
    ),
    stage2=dict(),
)
stages['stage1']['model']['head']['num_classes'] = 6
