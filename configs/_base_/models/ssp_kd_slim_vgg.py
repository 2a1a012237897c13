# The detector at a size that two cores train in minutes.
_base_ = '../detector.py'

_slim = dict(
    type='kgl_mm.SlimVGG',
    channels=(16, 32, 64, 64),
    convs=(1, 1, 1, 1),
    out_indices=(1, 2, 3),
    init_cfg=dict(type='Kaiming', layer='Conv2d'),
)
model = dict(
    type='kgl_mm.TeacherStudentDetector',
    teacher=_slim,
    student=_slim,  # begins alike beside any teacher
    ssp=dict(attention='none'),
    fuse='aff',
    ssp_weight=0.1,
    head=dict(loss='stpm', maps='stpm'),
)
custom_hooks = _base_.calibrate
