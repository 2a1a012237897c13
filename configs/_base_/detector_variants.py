# A detector of good parts with each part left out or another, for each teacher (docs/method.md), for
# tools/cross_validate.py --set variant=NAME,NAME: TEACHER_PART, such as random_whole or neu_attention_se. A teacher of
# other data is trained before: tools/train.py configs/studies/neu_teacher.py, or neu_teacher_resnet18.py.
_base_ = './models/ssp_kd_slim_vgg.py'

_parts = dict(
    whole={},
    unit={'model.head.unit': True},
    raw={'model.standardize': False},
    stpm={'model.ssp': None},
    stpm_raw={'model.ssp': None, 'model.standardize': False},
    attention_none={'model.ssp.attention': 'none'},
    attention_se={'model.ssp.attention': 'se'},
    add={'model.fuse': 'add'},
    replace={'model.fuse': 'replace'},
    mkd={'model.head.loss': 'mkd', 'model.head.maps': 'mkd'},
    mkd_alone={'model.ssp': None, 'model.head.loss': 'mkd', 'model.head.maps': 'mkd'},
)
_neu = dict(type='Pretrained', checkpoint='work_dirs/neu_teacher/stage1/epoch_20.pth', prefix='backbone.')
_neu_resnet18 = dict(_neu, checkpoint='work_dirs/neu_teacher_resnet18/stage1/epoch_20.pth')
_resnet18 = dict(_base_.detector.teacher, _delete_=True)
_teachers = dict(
    random={},
    neu={'model.teacher.init_cfg': dict(_neu, _delete_=True)},
    resnet18={'model.teacher': _resnet18, 'model.student': None},
    neu_resnet18={'model.teacher': dict(_resnet18, init_cfg=_neu_resnet18), 'model.student': None},
)
variants = {
    f'{teacher}_{part}': {**of_teacher, **of_part}
    for teacher, of_teacher in _teachers.items()
    for part, of_part in _parts.items()
}
