# What pretrainings guided by maps share. Their weights begin at random, as nothing may be downloaded. AGSSP begins with
# those of ImageNet and freezes the first stages, in two lines, and then only:
# model.backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet50')
# model.backbone.frozen_stages = 2  (of a ResNet; 1 of a Swin)
# Most maps are finer than the features, so they are averaged over their cells.
distill = dict(antialias=True)
custom_hooks = [dict(type='kgl_mm.BackboneHook')]
