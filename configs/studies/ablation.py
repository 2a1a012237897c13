# What each part of the method is worth, as arXiv 2605.17780 has it: prior as a channel, injection into the classifier,
# pooling, decay, stopped gradient, saliency; each variant changes one of them.
_base_ = './ksdd_avg.py'

_write = dict(type='kgl_mm.PriorGenerationHook')
stages = dict(
    stage1=dict(
        custom_hooks=[
            dict(**_write, method=dict(type='kgl_mm.LayerCAM')),
            dict(**_write, method=dict(type='kgl_mm.GradCAM'), layer='grad_cam'),
            dict(**_write, method=dict(type='kgl_mm.FullGrad'), layer='full_grad'),
        ]
    )
)
custom_hooks = [dict(type='kgl_mm.GuidanceHook', insist=True)]
model = dict(head=dict(pooling='max_avg', channel='dropout', seg_gradient=0.0))

_layer = 'train_dataloader.dataset.pipeline.3.layer'
variants = dict(
    paper={},
    no_channel={'model.head.channel': 'none'},
    no_injection={'model.head.inject': False},
    neither={'model.head.channel': 'none', 'model.head.inject': False},
    only_avg={'model.head.pooling': 'avg', 'model.head.seg_pooling': 'avg'},
    only_max={'model.head.pooling': 'max', 'model.head.seg_pooling': 'max'},
    constant={'model.head.loss.decay': 'constant'},
    gradient={'model.head.seg_gradient': 1.0},
    grad_cam={_layer: 'grad_cam'},
    full_grad={_layer: 'full_grad'},
)
