_base_ = './common.py'

load = [*_base_.load, dict(type='kgl_mm.Resize', scale=(512, 512))]
dataset = dict(type='kgl_mm.MVTecAD', category='metal_nut')
train_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.flips, *_base_.pack]))
test_dataloader = dict(dataset=dict(**dataset, pipeline=[*load, *_base_.pack]))
