model = dict(
    type='ImageClassifier',
    backbone=dict(type='RepVGG', arch='A0', out_indices=(3,)),
    neck=dict(type='kgl_mm.GlobalPooling', mode='avg'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=1280, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
)
