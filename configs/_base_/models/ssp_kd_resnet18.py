_base_ = '../detector.py'

model = dict(**_base_.detector)
custom_hooks = _base_.calibrate
