# The settings of arXiv 2605.17780: 50 epochs, the last one is reported.
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.0005, momentum=0.9))
train_cfg = dict(by_epoch=True, max_epochs=50)
test_cfg = dict()
