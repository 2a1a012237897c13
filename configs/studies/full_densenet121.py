# DenseNet-121 in the place of VGG16, by the recipe at full size.
_base_ = './ksdd_full_recipe.py'

model = dict(backbone=dict(_delete_=True, type='DenseNet', arch='121'), head=dict(in_channels=1024))
stages = dict(stage1=dict(model=dict(head=dict(in_channels=1024))))
