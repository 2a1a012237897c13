# A detector that learns from good parts alone; weights of its teacher: _base_/detector.py.
_base_ = [
    './_base_/models/ssp_kd_resnet18.py',
    './_base_/datasets/ksdd.py',
    './_base_/schedules/adam_cosine.py',
    './_base_/default_runtime.py',
]

train_dataloader = dict(**_base_.good_alone)
