model = dict(
    type='ImageClassifier',
    backbone=dict(type='DenseNet', arch='121'),
    neck=dict(type='kgl_mm.GlobalPooling', mode='avg'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=1024, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
)
