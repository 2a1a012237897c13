# The same pretrainings of the small network that configs/studies/from_agbp.py begins with.
_base_ = './agbp_resnet50_neu.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='kgl_mm.SlimVGG',
        channels=(16, 32, 64, 64),
        convs=(2, 2, 2, 2),
        init_cfg=dict(type='Kaiming', layer='Conv2d'),
    ),
    head=dict(in_channels=64),
)
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=10)
