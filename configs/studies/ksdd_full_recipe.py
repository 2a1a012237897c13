# The same with the schedule that small networks are trained by here.
_base_ = './ksdd_full.py'

optim_wrapper = dict(optimizer=dict(lr=0.02, weight_decay=5e-4), clip_grad=dict(max_norm=5))
param_scheduler = dict(type='CosineAnnealingLR', convert_to_iter_based=True)
train_dataloader = dict(batch_size=8)
model = dict(head=dict(seg_gradient=1.0))
