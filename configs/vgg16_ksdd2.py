_base_ = [
    './_base_/models/vgg16.py',
    './_base_/datasets/ksdd2.py',
    './_base_/schedules/sgd_50e.py',
    './_base_/default_runtime.py',
]
