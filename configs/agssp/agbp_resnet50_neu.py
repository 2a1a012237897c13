# Two pretrainings of a ResNet-50 on NEU-DET, without a box, for tools/benchmarks/detection.py. `classify` learns the
# six kinds and writes maps of what it took each image for. `agbp` begins anew with the same images, labels, steps and
# flips, and the maps besides: they are all that it has more, so its labels count as much as there (in AGSSP a tenth).
_base_ = [
    '../_base_/models/resnet50.py',
    '../_base_/datasets/neu_det.py',
    '../_base_/schedules/sgd_cosine.py',
    '../_base_/pretraining.py',
    '../_base_/default_runtime.py',
]

flips = [dict(type='RandomFlip', prob=0.5, direction=direction) for direction in ('horizontal', 'vertical')]
pack = [dict(type='kgl_mm.PackDefect')]
train_dataloader = dict(dataset=dict(pipeline=[*_base_.load, *flips, *pack]))
test_dataloader = dict(dataset=dict(pipeline=[*_base_.load, *pack]))
test_evaluator = dict(_delete_=True, type='kgl_mm.DefectMetric')
model = dict(head=dict(num_classes=6))
train_cfg = dict(max_epochs=20)
default_hooks = dict(checkpoint=dict(interval=5))

write = dict(type='kgl_mm.PriorGenerationHook', method=dict(type='kgl_mm.LayerCAM', target='predicted'))
hooks = [*_base_.custom_hooks, write]
custom_hooks = []
stages = dict(
    classify=dict(custom_hooks=hooks),
    agbp=dict(
        model=dict(type='kgl_mm.AnomalyGuidedPretrainer', backbone=dict(out_indices=(2, 3)), distill=_base_.distill),
        train_dataloader=dict(dataset=dict(pipeline=[*_base_.load, dict(type='kgl_mm.LoadPrior'), *flips, *pack])),
        custom_hooks=_base_.custom_hooks,
        test_dataloader=None,
        test_evaluator=None,
        test_cfg=None,
    ),
)
