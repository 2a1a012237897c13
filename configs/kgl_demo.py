# A small network, twenty defective images, both stages in some minutes on two cores: `make demo`.
_base_ = [
    './_base_/models/slim_vgg.py',
    './_base_/datasets/synthetic.py',
    './_base_/schedules/sgd_cosine.py',
    './_base_/default_runtime.py',
    './_base_/guided.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.02))
train_cfg = dict(max_epochs=80)
default_hooks = dict(checkpoint=dict(interval=10))

model = dict(neck=None, head=dict(_delete_=True, in_channels=64, **_base_.guided_head))
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.load, *_base_.priors, *_base_.flips, *_base_.pack]),
)

stages = dict(
    stage1=dict(
        model=dict(neck=dict(_delete_=True, **_base_.model.neck), head=dict(_delete_=True, **_base_.model.head)),
        train_dataloader=dict(dataset=dict(pipeline=_base_.train_dataloader.dataset.pipeline)),
        optim_wrapper=dict(optimizer=dict(lr=0.03)),
        train_cfg=dict(max_epochs=60),
        custom_hooks=[dict(_base_.write_priors[0], batch_size=16, fraction=1.0)],
    ),
    stage2=dict(),
)
