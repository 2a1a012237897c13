model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='kgl_mm.SlimVGG',
        channels=(16, 32, 64, 64),
        convs=(1, 1, 1, 1),
        init_cfg=dict(type='Kaiming', layer='Conv2d'),
    ),
    neck=dict(type='kgl_mm.GlobalPooling', mode='avg'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=64, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
)
