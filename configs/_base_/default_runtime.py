default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='kgl_mm.SafeCheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    sync_buffers=dict(type='SyncBuffersHook'),
    randomness=dict(type='kgl_mm.RandomnessHook'),
    record=dict(type='kgl_mm.RecordHook'),
)
# One line each, where wanted:
# default_hooks.channels_last = dict(type='kgl_mm.ChannelsLastHook')
# optim_wrapper.type = 'kgl_mm.Bf16OptimWrapper'  (or --amp)
# compile = True
# load_from = 'CHECKPOINT'  (pretrained weights)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
randomness = dict(seed=0)
log_level = 'INFO'
log_processor = dict(window_size=10)
visualizer = dict(type='kgl_mm.DefectVisualizer', vis_backends=[dict(type='LocalVisBackend')])
load_from = None
resume = False
