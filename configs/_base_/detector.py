# A student learns what its teacher sees on good parts. The weights of the teacher are random, which is the control, or,
# in one line of a config, those of ImageNet (a download), or with prefix='backbone.' of a classifier trained here:
# model = dict(teacher=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')))
# or: --cfg-options model.teacher.init_cfg.type=Pretrained model.teacher.init_cfg.checkpoint=torchvision://resnet18
# As a first stage (kgl_resnet18_ksdd_from_good.py) it is stages.stage1.model.teacher.
detector = dict(
    type='kgl_mm.TeacherStudentDetector',
    teacher=dict(
        type='ResNet',
        depth=18,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        style='pytorch',
        zero_init_residual=False,  # a random one is not trained, so its blocks would put out nothing
    ),
    ssp=dict(attention='none'),
    fuse='aff',
    ssp_weight=0.1,
    head=dict(loss='stpm', maps='stpm'),
)
calibrate = [dict(type='kgl_mm.CalibrationHook')]

# the detector as a first stage, whose maps guide a classifier
from_good = dict(
    model=dict(_delete_=True, **detector),
    optim_wrapper=dict(optimizer=dict(_delete_=True, type='Adam', lr=0.001), clip_grad=None),
    param_scheduler=dict(type='CosineAnnealingLR', convert_to_iter_based=True),
    train_cfg=dict(max_epochs=100),
    custom_hooks=[
        *calibrate,
        dict(type='kgl_mm.PriorGenerationHook', method=dict(type='kgl_mm.TeacherStudentSource')),
    ],
)
good_alone = dict(
    batch_size=8,
    dataset=dict(num_positives=0),
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
)
