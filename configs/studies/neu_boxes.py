# NEU-DET again, guided by its real boxes (tools/benchmarks/boxes_as_maps.py --out work_dirs/neu_boxes): what maps could do.
_base_ = './neu.py'

_boxes = dict(type='kgl_mm.FolderSource', folder='work_dirs/neu_boxes')
_write = dict(type='kgl_mm.PriorGenerationHook', method=_boxes, layer='boxes')
stages = dict(stage1=dict(custom_hooks=[*_base_.stages.stage1.custom_hooks, _write]))
variants = dict(boxes={'train_dataloader.dataset.pipeline.3.layer': 'boxes', 'custom_hooks.0.insist': True})
