_base_ = './agbp_swin_base.py'

model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=768))
