# Whether a first stage that has learned little does harm: the embedded surfaces, harder (--data-options difficulty=0.5),
# with a first stage of few epochs (--set stages.stage1.train_cfg.max_epochs=2,40).
_base_ = '../kgl_demo.py'

default_hooks = dict(checkpoint=dict(interval=100))
stages = dict(stage1=dict(default_hooks=dict(checkpoint=dict(interval=1))))

_weight = 'model.head.loss.seg_weight'
_open, _stopped = {'model.head.seg_gradient': 1.0}, {'model.head.seg_gradient': 0.0}
_insist = {'custom_hooks.0.insist': True}
variants = dict(
    head={_weight: 0, **_stopped},
    head_open={_weight: 0, **_open},
    guided={},
    guided_open={**_insist, **_open},
    guided_stopped={**_insist, **_stopped},
)
