model = dict(
    type='kgl_mm.TorchvisionDetector',
    kind='faster_rcnn',
    num_classes=1,
    backbone=dict(type='ResNet', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), style='pytorch'),
)
