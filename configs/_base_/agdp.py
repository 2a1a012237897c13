# Neck and head of a detector learn from boxes around what stands out of maps; the backbone, which a pretraining guided by
# maps has left (agbp_*.py), stays as it is.
backbone_weights = dict(
    type='Pretrained', checkpoint='work_dirs/agbp_resnet50/stage1/backbone.pth', prefix='backbone.'
)
