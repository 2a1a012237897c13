# The same where both stages pool by maximum and average.
_base_ = './search_avg.py'

model = dict(head=dict(pooling='max_avg'))
stages = dict(stage1=dict(model=dict(neck=dict(mode='max_avg'), head=dict(in_channels=128))))
variants = dict(consistency={'model': dict(neck=dict(mode='max_avg'), head=dict(in_channels=128))})
