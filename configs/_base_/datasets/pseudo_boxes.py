# What tools/boxes_from_priors.py writes: --data DIR (the images) --data-options ann_file=FILE. A tenth is kept to see
# whether the detector finds such boxes in images that it has not learned from.
_base_ = './boxes.py'

load = [*_base_.load, dict(type='kgl_mm.Resize', scale=(640, 640), keep_ratio=True)]
dataset = dict(type='kgl_mm.CocoBoxes', ann_file='data/boxes.json', test_fraction=0.1)
train_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.flips, *_base_.pack]))
test_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.pack]))
