_base_ = './common.py'

load = [*_base_.load, dict(type='kgl_mm.Resize', scale=(512, 512))]
dataset = dict(type='kgl_mm.DefectFolder', data_root='data/folder')
train_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.flips, *_base_.pack]))
test_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.pack]))

# a folder always has a validation part: it chooses the threshold
val_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(**dataset, split='val', pipeline=[*load, *_base_.pack]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='kgl_mm.DefectMetric', threshold_aim='f1')
val_cfg = dict()
