model = dict(
    type='ImageClassifier',
    backbone=dict(type='VGG', depth=16, norm_cfg=dict(type='BN'), act_cfg=dict(type='LeakyReLU')),
    neck=dict(type='kgl_mm.GlobalPooling', mode='avg'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=512, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
)
