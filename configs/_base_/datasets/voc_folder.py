# A folder of images and one of XML files: --data DIR. A fifth is the test part, and of the rest a fifth is kept for
# validation, which chooses the epoch; where lists name these parts: --data-options test_fraction=0 val_fraction=0.
_base_ = './boxes.py'

load = [*_base_.load, dict(type='kgl_mm.Resize', scale=(640, 640), keep_ratio=True)]
dataset = dict(type='kgl_mm.VocBoxes', data_root='data/folder', test_fraction=0.2, val_fraction=0.2)
train_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.flips, *_base_.pack]))
test_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.pack]))
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(**dataset, split='val', pipeline=[*load, *_base_.pack]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='kgl_mm.BoxMetric')
val_cfg = dict()
