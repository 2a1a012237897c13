# What makes a good target of guidance, and how strongly it should teach; by validation data alone (docs/experiments.md).
_base_ = './surface_many.py'

_write = dict(type='kgl_mm.PriorGenerationHook', batch_size=16, fraction=1.0)
stages = dict(
    stage1=dict(
        custom_hooks=[
            dict(**_write, method=dict(type='kgl_mm.LayerCAM', fuse='mean')),
            dict(**_write, method=dict(type='kgl_mm.LayerCAM'), layer='largest'),
            dict(**_write, method=dict(type='kgl_mm.GradCAM'), layer='grad_cam'),
            dict(**_write, method=dict(type='kgl_mm.FullGrad'), layer='full_grad'),
        ]
    )
)
custom_hooks = [dict(type='kgl_mm.GuidanceHook', insist=True)]

_loss = 'model.head.loss'
_layer, _target = 'train_dataloader.dataset.pipeline.2.layer', 'train_dataloader.dataset.pipeline.3'
variants = dict(
    largest={_layer: 'largest'},
    grad_cam={_layer: 'grad_cam'},
    full_grad={_layer: 'full_grad'},
    soft={f'{_target}.soft': True},
    small={f'{_target}.max_area': 0.03},
    dilated={f'{_target}.dilation': 4},
    masks2={f'{_target}.num_masks': 2},
    rounds={'rounds': 2, f'{_target}.max_area': 0.05},
    weight02={f'{_loss}.seg_weight': 0.2},
    weight5={f'{_loss}.seg_weight': 5},
    pos1={f'{_loss}.pos_weight': 1},
    constant={f'{_loss}.decay': 'constant'},
    half={'model.head.seg_gradient': 0.5},
    crossfit={'crossfit': 5},
)
