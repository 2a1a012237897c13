# The recipe at full size where both stages pool by maximum and average.
_base_ = './ksdd_full_recipe.py'

model = dict(head=dict(pooling='max_avg'))
stages = dict(stage1=dict(model=dict(neck=dict(mode='max_avg'), head=dict(in_channels=1024))))
