# Which settings make guidance work best, on validation data; what came out is in docs/experiments.md.
_base_ = './ksdd_avg.py'

_write = dict(type='kgl_mm.PriorGenerationHook')
stages = dict(
    stage1=dict(
        custom_hooks=[
            dict(**_write, method=dict(type='kgl_mm.LayerCAM')),
            dict(**_write, method=dict(type='kgl_mm.LayerCAM', fuse='mean'), layer='mean'),
            dict(**_write, method=dict(type='kgl_mm.GradCAM'), layer='grad_cam'),
            dict(**_write, method=dict(type='kgl_mm.FullGrad'), layer='full_grad'),
        ]
    )
)
custom_hooks = [dict(type='kgl_mm.GuidanceHook', insist=True)]

model = dict(head=dict(seg_gradient=0.0))

_layer = 'train_dataloader.dataset.pipeline.3.layer'
_target = 'train_dataloader.dataset.pipeline.4'
_loss = 'model.head.loss'
_rate, _open = 'optim_wrapper.optimizer.lr', {'model.head.seg_gradient': 1.0}
_alone = {f'{_loss}.seg_weight': 0, **_open}
variants = dict(
    judged={'custom_hooks.0.insist': False},
    open_half={'model.head.seg_gradient': 0.5},
    open_tenth={'model.head.seg_gradient': 0.1},
    dropout={'model.head.channel': 'dropout'},
    self={'model.head.channel': 'self'},
    layer_mean={_layer: 'mean'},
    grad_cam={_layer: 'grad_cam'},
    full_grad={_layer: 'full_grad'},
    weight1={f'{_loss}.seg_weight': 1},
    weight20={f'{_loss}.seg_weight': 20},
    constant={f'{_loss}.decay': 'constant'},
    linear_head={'model.head.hidden': ()},
    soft={f'{_target}.soft': True},
    small={f'{_target}.max_area': 0.03},
    pos1={f'{_loss}.pos_weight': 1},
    rate_high={_rate: 0.05, **_open},
    rate_low={_rate: 0.007, **_open},
    alone_rate_high={_rate: 0.05, **_alone},
    alone_rate_low={_rate: 0.007, **_alone},
)
