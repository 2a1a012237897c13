# What guidance is compared with (docs/method.md), for tools/cross_validate.py --set variant=NAME,NAME: fields of the
# config, and `only` for a variant that is the first stage alone. Places in the pipeline: 3 LoadPrior, 4 BinarizePrior.
_weight = 'model.head.loss.seg_weight'
_load = 'train_dataloader.dataset.pipeline.3'
_target = 'train_dataloader.dataset.pipeline.4'
_open, _stopped = {'model.head.seg_gradient': 1.0}, {'model.head.seg_gradient': 0.0}
_insist = {'custom_hooks.0.insist': True}

variants = dict(
    plain={'only': 'stage1'},
    head={_weight: 0, **_stopped},
    head_open={_weight: 0, **_open},
    guided={},
    guided_open={**_insist, **_open},
    guided_stopped={**_insist, **_stopped},
    wrong_open={f'{_load}.wrong': True, **_insist, **_open},
    wrong_stopped={f'{_load}.wrong': True, **_insist, **_stopped},
    good_open={f'{_target}.num_priors': 0, **_insist, **_open},
    rounds={'rounds': 3, **_insist, **_open},
    priors5_open={f'{_target}.num_priors': 5, **_insist, **_open},
    priors5_stopped={f'{_target}.num_priors': 5, **_insist, **_stopped},
    masks_open={f'{_target}.num_priors': 0, f'{_target}.num_masks': None, **_open},
    masks_stopped={f'{_target}.num_priors': 0, f'{_target}.num_masks': None, **_stopped},
    masks5_open={f'{_target}.num_masks': 5, **_insist, **_open},
)
