# The teacher, the loss and the map of MKD. ImageNet weights (detector.py), with prefix='backbone.': those of VGG-16-BN in
# mmpretrain's configs/vgg/metafile.yml, whose addresses are there.
_base_ = '../detector.py'

model = dict(
    type='kgl_mm.TeacherStudentDetector',
    teacher=dict(
        type='VGG', depth=16, num_stages=4, dilations=(1, 1, 1, 1), out_indices=(0, 1, 2, 3), norm_cfg=dict(type='BN')
    ),
    ssp=dict(attention='none'),
    fuse='aff',
    ssp_weight=0.1,
    head=dict(loss='mkd', maps='mkd'),
)
custom_hooks = _base_.calibrate
