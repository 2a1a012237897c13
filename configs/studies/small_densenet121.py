# DenseNet-121 in the place of the slim VGG, at a size that two cores train.
_base_ = './ksdd_avg.py'

model = dict(backbone=dict(_delete_=True, type='DenseNet', arch='121'), head=dict(in_channels=1024))
stages = dict(stage1=dict(model=dict(head=dict(in_channels=1024))))
