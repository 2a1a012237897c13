# ResNet-18 in the place of the slim VGG, at a size that two cores train.
_base_ = './ksdd_avg.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, num_stages=4, out_indices=(3,), style='pytorch'),
    head=dict(in_channels=512),
)
stages = dict(stage1=dict(model=dict(head=dict(in_channels=512))))
