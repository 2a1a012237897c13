model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(3,), style='pytorch'),
    neck=dict(type='kgl_mm.GlobalPooling', mode='avg'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=512, loss=dict(type='CrossEntropyLoss'), topk=(1,)),
)
