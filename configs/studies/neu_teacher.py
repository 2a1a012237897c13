# Weights of a teacher from other data: the network that _base_/models/ssp_kd_slim_vgg.py looks with learns to tell the
# six kinds of NEU-DET apart; detectors take them from work_dirs/neu_teacher.
_base_ = './neu.py'

train_dataloader = dict(batch_size=32)
train_cfg = dict(max_epochs=20, val_interval=20)
default_hooks = dict(checkpoint=dict(interval=20))

stages = dict(_delete_=True, stage1=dict(_base_.stages.stage1, custom_hooks=[]))
