# The teacher, the loss and the map of MKD. ImageNet weights (detector.py), with prefix='backbone.': mmpretrain's
# download.openmmlab.com/mmclassification/v0/vgg/vgg16_bn_batch256_imagenet_20210208-7e55cd29.pth
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
