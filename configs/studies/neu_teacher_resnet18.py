# The same of ResNet-18.
_base_ = './neu_teacher.py'

_backbone = dict(_delete_=True, type='ResNet', depth=18, num_stages=4, out_indices=(3,), style='pytorch')
model = dict(backbone=_backbone)
stages = dict(stage1=dict(model=dict(head=dict(in_channels=512))))
