# Settings that may help with priors and without: the same budget of tuning for both; by validation data alone
# (docs/experiments.md).
_base_ = './surface_many.py'

custom_hooks = [dict(type='kgl_mm.GuidanceHook', insist=True)]

_rate = 'optim_wrapper.optimizer.lr'
_jitter = dict(type='ColorJitter', brightness=0.3, contrast=0.3)
_pipeline = _base_.train_dataloader.dataset.pipeline
_ema = dict(type='EMAHook', momentum=0.01)
_both = {
    'rate_high': {_rate: 0.05},
    'rate_low': {_rate: 0.007},
    'ema': {'custom_hooks': [dict(type='kgl_mm.GuidanceHook', insist=True), _ema]},
    'jitter': {'train_dataloader.dataset.pipeline': [*_pipeline[:-1], _jitter, _pipeline[-1]]},
    'group_norm': {'model.head.norm_cfg': dict(type='GN', num_groups=8)},
    'fine': {'model.backbone.out_indices': (2, 3), 'model.head.fine_index': 0, 'model.head.fine_channels': 64},
    'hidden': {'model.head.hidden': (64,)},
    'seg_max': {'model.head.seg_pooling': 'max'},
}
variants = {f'{name}_open': fields for name, fields in _both.items()}
variants.update({f'{name}_alone': {'model.head.loss.seg_weight': 0, **fields} for name, fields in _both.items()})
