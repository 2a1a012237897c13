# NEU-DET: six kinds of defect on hot-rolled steel, 200 x 200 pixels. It has no official split: a fifth is the test part.
_base_ = './boxes.py'

load = [*_base_.load, dict(type='kgl_mm.Resize', scale=(320, 320), keep_ratio=True)]
dataset = dict(type='kgl_mm.VocBoxes', name='NEU-DET', test_fraction=0.2)
train_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.flips, *_base_.pack]))
test_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.pack]))
