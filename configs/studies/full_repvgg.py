# RepVGG-A0 in the place of VGG16, by the recipe at full size.
_base_ = './ksdd_full_recipe.py'

model = dict(backbone=dict(_delete_=True, type='RepVGG', arch='A0', out_indices=(3,)), head=dict(in_channels=1280))
stages = dict(stage1=dict(model=dict(head=dict(in_channels=1280))))
