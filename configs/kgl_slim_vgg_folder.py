# kgl_folder.py at a size that two cores train in minutes.
_base_ = ['./slim_vgg_folder.py', './_base_/guided.py']

unguided = True
model = dict(neck=None, head=dict(_delete_=True, in_channels=64, **_base_.guided_head))
train_dataloader = dict(dataset=dict(pipeline=[*_base_.load, *_base_.priors, *_base_.flips, *_base_.pack]))

stages = dict(
    stage1=dict(
        model=dict(neck=dict(_delete_=True, **_base_.model.neck), head=dict(_delete_=True, **_base_.model.head)),
        train_dataloader=dict(dataset=dict(pipeline=_base_.train_dataloader.dataset.pipeline)),
        custom_hooks=_base_.write_priors,
    ),
    stage2=dict(),
)
