# A Swin-B learns to look where maps are, and to reconstruct what is masked: categories are not needed. Its weights are
# for a SwinTransformer with windows of the same size: of 7, as most have them. AGSSP has crops of 192 and windows of 6,
# as SimMIM's weights of ImageNet do: crop = 192, block_cfgs = dict(window_size=6).
_base_ = ['../_base_/datasets/categories.py', '../_base_/pretraining.py', '../_base_/default_runtime.py']

crop = 224
model = dict(
    type='kgl_mm.AnomalyGuidedPretrainer',
    backbone=dict(
        type='SimMIMSwinTransformer',
        arch='base',
        img_size=crop,
        stage_cfgs=dict(block_cfgs=dict(window_size=7)),
        pad_small_map=True,
        frozen_stages=-1,
    ),
    neck=dict(type='SimMIMLinearDecoder', in_channels=1024, encoder_stride=32),
    head=dict(type='SimMIMHead', patch_size=4, loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3)),
    distill=dict(**_base_.distill, loss_weight=2.0),
)

crops = dict(type='RandomResizedCrop', scale=crop, crop_ratio_range=(0.25, 1.0))
flips = dict(type='RandomFlip', prob=0.5)
masks = dict(type='SimMIMMaskGenerator', input_size=crop, mask_patch_size=32, model_patch_size=4, mask_ratio=0.6)
pipeline = [*_base_.load, crops, flips, masks, dict(type='kgl_mm.PackDefect')]
train_dataloader = dict(dataset=dict(pipeline=pipeline))

# The schedule of AGSSP, whose batches are of 448 images, up to the epoch whose weights it goes on with: the learning
# rate goes with their size, here 64.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-4 * 64 / 512, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=10, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[80], gamma=0.1),
]
train_cfg = dict(by_epoch=True, max_epochs=200)
default_hooks = dict(checkpoint=dict(interval=10))
