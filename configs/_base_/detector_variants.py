# A detector of good parts with each part left out or another, for each teacher (docs/method.md), for
# tools/cross_validate.py --set variant=NAME,NAME: TEACHER_PART, such as random_whole or neu_attention_se. A teacher of
# other data is trained before: tools/train.py configs/studies/neu_teacher.py, or neu_teacher_resnet18.py. The whole is as
# published, with SimAM; attention_none is what the other configs have.
_base_ = './models/ssp_kd_slim_vgg.py'

_simam = {'model.ssp.attention': 'simam'}
_mkd = {'model.head.loss': 'mkd', 'model.head.maps': 'mkd'}
_parts = dict(
    whole=_simam,
    unit={'model.head.unit': True, **_simam},
    raw={'model.standardize': False, **_simam},
    stpm={'model.ssp': None},
    stpm_raw={'model.ssp': None, 'model.standardize': False},
    attention_none={},
    attention_se={'model.ssp.attention': 'se'},
    add={'model.fuse': 'add', **_simam},
    replace={'model.fuse': 'replace', **_simam},
    mkd={**_mkd, **_simam},
    mkd_alone={'model.ssp': None, **_mkd},
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
