# A small network, twenty defective images, both stages in some minutes on two cores: `make demo`.
_base_ = [
    './_base_/models/slim_vgg.py',
    './_base_/datasets/synthetic.py',
    './_base_/schedules/sgd_cosine.py',
    './_base_/default_runtime.py',
    './_base_/guided.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.02))
train_cfg = dict(max_epochs=100)
default_hooks = dict(checkpoint=dict(interval=10))

model = dict(neck=None, head=dict(_delete_=True, in_channels=64, hidden=(), **_base_.guided_head))
model['head']['loss'] = dict(type='kgl_mm.KnowledgeGuidedLoss', seg_weight=1.0)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.load, *_base_.priors, *_base_.flips, *_base_.pack]),
)

stages = dict(
    stage1=dict(
        model=dict(neck=dict(_delete_=True, **_base_.model.neck), head=dict(_delete_=True, **_base_.model.head)),
        train_dataloader=dict(dataset=dict(pipeline=_base_.train_dataloader.dataset.pipeline)),
        optim_wrapper=dict(optimizer=dict(lr=0.03)),
        train_cfg=dict(max_epochs=40),
        custom_hooks=[
            dict(
                type='kgl_mm.PriorGenerationHook',
                method=dict(type='kgl_mm.LayerCAM', fuse='mean'),
                batch_size=16,
                fraction=1.0,
            ),
        ],
    ),
    stage2=dict(),
)
