# What turns a plain classifier into a guided one: a leaf lays it over a config of one stage.
guided_head = dict(
    type='kgl_mm.KnowledgeInjectionHead',
    num_classes=2,
    seg_gradient=1.0,  # the classification teaches the branch too; 0 stops it, as in arXiv 2605.17780
    loss=dict(type='kgl_mm.KnowledgeGuidedLoss', seg_weight=5.0, pos_weight=3.0),
)
priors = [dict(type='kgl_mm.LoadPrior'), dict(type='kgl_mm.BinarizePrior')]
custom_hooks = [dict(type='kgl_mm.GuidanceHook')]

# stage 1 writes what stage 2 reads
write_priors = [dict(type='kgl_mm.PriorGenerationHook', method=dict(type='kgl_mm.LayerCAM'))]
rounds = 1
