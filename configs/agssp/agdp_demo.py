# AGDP on the embedded surfaces, with the network of kgl_demo.py, in about a minute on two cores.
_base_ = [
    '../_base_/datasets/pseudo_boxes.py',
    '../_base_/schedules/boxes_sgd.py',
    '../_base_/default_runtime.py',
]

data_preprocessor = dict(mean=[125.0] * 3, std=[25.0] * 3, to_rgb=True)
model = dict(
    type='kgl_mm.TorchvisionDetector',
    kind='fcos',
    channels=32,
    freeze_backbone=True,
    backbone=dict(
        type='kgl_mm.SlimVGG',
        channels=(16, 32, 64, 64),
        convs=(1, 1, 1, 1),
        out_indices=(1, 2, 3),
        init_cfg=dict(
            type='Pretrained', checkpoint='work_dirs/kgl_demo/stage1/epoch_40.pth', prefix='backbone.'
        ),
    ),
)
loader = dict(batch_size=8, num_workers=0, persistent_workers=False)
data = dict(
    data_root='data/synthetic_surface/64x128-difficulty0.1-a4adb694', ann_file='work_dirs/kgl_demo/boxes.json'
)
train_dataloader = dict(**loader, dataset=dict(**data, pipeline=[*_base_.load[:1], *_base_.flips, *_base_.pack]))
test_dataloader = dict(**loader, dataset=dict(**data, pipeline=[*_base_.load[:1], *_base_.pack]))
optim_wrapper = dict(optimizer=dict(lr=0.02))
train_cfg = dict(max_epochs=10)
