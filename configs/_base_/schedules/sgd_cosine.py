# For small networks trained from nothing: the schedule spans whatever train_cfg.max_epochs is.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=5e-4),
    clip_grad=dict(max_norm=5),
)
param_scheduler = dict(type='CosineAnnealingLR', convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=40)
test_cfg = dict()
