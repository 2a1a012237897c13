"""The weights of a ``TorchvisionDetector`` under the names that mmdet gives them."""

import re

import torch

from kgl_mm.errors import UsageError

PYRAMID = {
    r'neck\.inner_blocks\.(\d+)\.0\.': r'neck.lateral_convs.\1.conv.',
    r'neck\.layer_blocks\.(\d+)\.0\.': r'neck.fpn_convs.\1.conv.',
}
HEADS = dict(
    fcos={
        r'detector\.head\.classification_head\.cls_logits': 'bbox_head.conv_cls',
        r'detector\.head\.regression_head\.bbox_reg': 'bbox_head.conv_reg',
        r'detector\.head\.regression_head\.bbox_ctrness': 'bbox_head.conv_centerness',
    },
    retinanet={
        r'detector\.head\.classification_head\.conv\.(\d+)\.0': r'bbox_head.cls_convs.\1.conv',
        r'detector\.head\.regression_head\.conv\.(\d+)\.0': r'bbox_head.reg_convs.\1.conv',
        r'detector\.head\.classification_head\.cls_logits': 'bbox_head.retina_cls',
        r'detector\.head\.regression_head\.bbox_reg': 'bbox_head.retina_reg',
    },
    faster_rcnn={
        r'detector\.rpn\.head\.conv\.0\.0': 'rpn_head.rpn_conv',
        r'detector\.rpn\.head\.cls_logits': 'rpn_head.rpn_cls',
        r'detector\.rpn\.head\.bbox_pred': 'rpn_head.rpn_reg',
        r'detector\.roi_heads\.box_head\.fc6': 'roi_head.bbox_head.shared_fcs.0',
        r'detector\.roi_heads\.box_head\.fc7': 'roi_head.bbox_head.shared_fcs.1',
        r'detector\.roi_heads\.box_predictor\.cls_score': 'roi_head.bbox_head.fc_cls',
        r'detector\.roi_heads\.box_predictor\.bbox_pred': 'roi_head.bbox_head.fc_reg',
    },
)


def kind_of(state: dict) -> str:
    """Which detector the weights are of."""
    if any(name.startswith('detector.rpn.') for name in state):
        return 'faster_rcnn'
    if 'detector.head.regression_head.bbox_ctrness.weight' in state:
        return 'fcos'
    if 'detector.head.regression_head.bbox_reg.weight' in state:
        return 'retinanet'
    raise UsageError('not the weights of a detector: there is no detector.head and no detector.rpn among them')


def to_mmdet(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights for mmdet's FCOS, RetinaNet or FasterRCNN; ``docs/detection.md`` has the configs they fit.

    The backbone keeps its names: those of ResNet are the same, others come as ``dict(type='mmpretrain.X')``. Faster
    R-CNN's background is the first class here and the last one there.

    Args:
        state: of a ``TorchvisionDetector``.
    """
    kind = kind_of(state)
    levels = sum(bool(re.fullmatch(r'neck\.layer_blocks\.\d+\.0\.weight', name)) for name in state)
    extra = {rf'neck\.extra_blocks\.p{6 + i}\.': f'neck.fpn_convs.{levels + i}.conv.' for i in range(2)}
    rules = PYRAMID | extra | HEADS[kind]
    found, unknown = {}, []
    for name, value in state.items():
        if name.startswith(('backbone.', 'data_preprocessor.')):
            new = name
        elif kind == 'fcos' and (match := re.fullmatch(r'detector\.head\.(.*)_head\.conv\.(\d+)\.(.*)', name)):
            # a convolution, its norm and its activation take three places in a row
            place, part = int(match[2]), 'conv' if int(match[2]) % 3 == 0 else 'gn'
            branch = dict(classification='cls', regression='reg')[match[1]]
            new = f'bbox_head.{branch}_convs.{place // 3}.{part}.{match[3]}'
        else:
            rule = next((rule for rule in rules if re.match(rule, name)), None)
            if rule is None:
                unknown.append(name)
                continue
            new = re.sub(rule, rules[rule], name, count=1)
        found[new] = value
    if unknown:
        raise UsageError(f'{unknown[0]} and {len(unknown)} weights in all have no name in mmdet: not of {kind} as here')
    if kind == 'fcos':
        found |= {f'bbox_head.scales.{level}.scale': torch.tensor(1.0) for level in range(levels + 2)}
    if kind == 'faster_rcnn':
        for part in ('weight', 'bias'):
            classes, boxes = (f'roi_head.bbox_head.{layer}.{part}' for layer in ('fc_cls', 'fc_reg'))
            found[classes] = found[classes].roll(-1, 0)
            found[boxes] = found[boxes][4:]
    return found
