_base_ = './vgg16_ksdd.py'

model = dict(neck=dict(mode='max_avg'), head=dict(in_channels=1024))
