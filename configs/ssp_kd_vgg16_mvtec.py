# A detector that learns from good parts alone, tested on all defective images as published; weights of its teacher:
# _base_/detector.py.
_base_ = [
    './_base_/models/ssp_kd_vgg16.py',
    './_base_/datasets/mvtec.py',
    './_base_/schedules/adam_cosine.py',
    './_base_/default_runtime.py',
]

train_dataloader = dict(_base_.good_alone, dataset=dict(num_positives=0, learn_defects=False))
test_dataloader = dict(dataset=dict(learn_defects=False))
