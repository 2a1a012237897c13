_base_ = [
    './_base_/models/repvgg.py',
    './_base_/datasets/ksdd.py',
    './_base_/schedules/sgd_50e.py',
    './_base_/default_runtime.py',
]
