# Weights of a teacher from other data: the network that _base_/models/ssp_kd_slim_vgg.py looks with learns to tell the
# six kinds of NEU-DET apart; detectors take them from work_dirs/neu_teacher.
_base_ = './neu.py'

model = dict(backbone=dict(channels=(16, 32, 32), convs=(1, 1, 1)))
train_dataloader = dict(batch_size=32)
train_cfg = dict(max_epochs=20, val_interval=20)
default_hooks = dict(checkpoint=dict(interval=20))

_first = _base_.stages.stage1
_head = dict(_first.model.head, in_channels=32)
stages = dict(
    _delete_=True,
    stage1=dict(_first, model=dict(_first.model, head=_head), custom_hooks=[]),
)
