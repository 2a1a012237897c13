# For students that learn from a teacher: the schedule spans whatever train_cfg.max_epochs is.
optim_wrapper = dict(optimizer=dict(type='Adam', lr=0.001))
param_scheduler = dict(type='CosineAnnealingLR', convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=100)
test_cfg = dict()
