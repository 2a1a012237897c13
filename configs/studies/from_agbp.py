# Whether stage 1 and guided learning on few defects of KolektorSDD gain from a backbone that was pretrained on NEU-DET
# alone, in one command beforehand: python tools/train.py configs/agssp/agbp_slim_vgg_neu.py. Then
# --set variant=plain,plain_kinds,plain_agbp,guided,guided_kinds,guided_agbp data.num_positives=5,10
# `agbp` begins with the backbone guided by maps, `kinds` with that which has learned the kinds alone; of both stages.
_base_ = './ksdd_avg.py'

_open = {'model.head.loss.seg_weight': 0, 'model.head.seg_gradient': 1.0}
_kinds = {'load_from': 'work_dirs/agbp_slim_vgg_neu/classify/backbone.pth'}
_agbp = {'load_from': 'work_dirs/agbp_slim_vgg_neu/agbp/backbone.pth'}

variants = dict(
    plain_kinds={'only': 'stage1', **_kinds},
    plain_agbp={'only': 'stage1', **_agbp},
    head_open_kinds={**_open, **_kinds},
    head_open_agbp={**_open, **_agbp},
    guided_kinds=_kinds,
    guided_agbp=_agbp,
)
