_base_ = [
    './_base_/models/vgg16.py',
    './_base_/datasets/folder.py',
    './_base_/schedules/sgd_50e.py',
    './_base_/default_runtime.py',
]

# with few defects, the average alone sees small ones far worse (docs/benchmarks.md)
model = dict(neck=dict(mode='max_avg'), head=dict(in_channels=1024))
