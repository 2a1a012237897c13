# ResNet-18 in the place of VGG16, by the recipe at full size.
_base_ = './ksdd_full_recipe.py'

_backbone = dict(_delete_=True, type='ResNet', depth=18, num_stages=4, out_indices=(3,), style='pytorch')
model = dict(backbone=_backbone, head=dict(in_channels=512))
stages = dict(stage1=dict(model=dict(head=dict(in_channels=512))))
