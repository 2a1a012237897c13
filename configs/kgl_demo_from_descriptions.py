# kgl_demo guided by maps of a network that has seen drawn defects only: what is known of defects, in words.
_base_ = './kgl_demo.py'

descriptions = [
    'metal surface with crack defect, it appears as a clear dark jagged line, moderately wide',
    'metal surface with scratch defect, it appears as a clear bright vertical line, moderately wide',
    'metal surface with pit defect, it appears as a clear dark spot, small, with ragged edges',
    'metal surface with stain defect, it appears as a faint dark oval spot, medium, with ragged edges',
]
source = dict(type='kgl_mm.DescriptionSource', descriptions=descriptions)
stages = dict(
    stage1=dict(
        custom_hooks=[dict(type='kgl_mm.PriorGenerationHook', method=source, batch_size=16, fraction=1.0)],
    ),
)
