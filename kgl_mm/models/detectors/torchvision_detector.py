import itertools
import logging
from collections import OrderedDict
from inspect import signature

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from kgl_mm.errors import UsageError, check_choice, check_number, first_line
from kgl_mm.models.pretrained import check_pretrained
from kgl_mm.registry import MODELS

from .anchors import Anchors

KINDS = dict(fcos=FCOS, retinanet=RetinaNet, faster_rcnn=FasterRCNN)
CLASS_LAYERS = ('cls_logits', 'cls_score', 'bbox_pred')
"""What holds a row for each class."""
PREPARATION = ('backbone', 'num_classes', 'min_size', 'max_size', 'image_mean', 'image_std', 'kwargs')
"""Arguments of torchvision's classes that are not left to options."""


@MODELS.register_module()
class TorchvisionDetector(BaseModel):
    """FCOS, RetinaNet or Faster R-CNN of torchvision, with a backbone of mmpretrain and torchvision's pyramid.

    Its operators come compiled with torchvision, wherever torch runs. Of torchvision's own preparation of images
    nothing is left: they have the size that the pipeline gave, and ``data_preprocessor`` normalises them. Anchors stand
    where those of mmdet do (:class:`~kgl_mm.models.detectors.anchors.Anchors`). What the heads put out is in float32,
    so mixed precision costs boxes nothing.

    A data sample brings ``gt_instances`` (``bboxes`` N x 4 as left, top, right, bottom in pixels of the input, and
    ``labels``), of which there may be none. A prediction carries ``pred_instances`` (``bboxes``, ``scores``,
    ``labels``); in it both are in pixels of the image file, as far as the pipeline only resized it.

    Weights of another number of classes can be loaded: the layers that have a row for each class begin anew, which is
    said once. Names: ``backbone``, ``neck`` and ``detector``; :func:`~kgl_mm.models.detectors.mmdet_names.to_mmdet`
    gives those of mmdet.

    Args:
        backbone: puts out maps, from fine to coarse, each at half the size of the one before (``out_indices``).
        kind: ``'fcos'``, ``'retinanet'`` or ``'faster_rcnn'``.
        num_classes: without a background.
        channels: of each level of the pyramid; FCOS needs a multiple of 32.
        freeze_backbone: keep it as it is, its batch norm too: neck and head learn alone.
        options: more of torchvision's class, such as ``dict(score_thresh=0.05)`` (Faster R-CNN: ``box_score_thresh``).
        data_preprocessor: by default mmpretrain's ``ClsDataPreprocessor``.
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        backbone: dict,
        kind: str = 'fcos',
        num_classes: int = 1,
        channels: int = 256,
        freeze_backbone: bool = False,
        options: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        check_choice(KINDS, kind=kind)
        check_choice((True, False), freeze_backbone=freeze_backbone)
        check_number(1, whole=True, num_classes=num_classes, channels=channels)
        if kind == 'fcos' and channels % 32:
            raise UsageError(f'channels={channels}: the head of FCOS normalises 32 groups, so give a multiple of 32')
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build(dict(type='ClsDataPreprocessor') | (data_preprocessor or {}))
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.kind = kind
        self.num_classes = num_classes
        self.freeze_backbone = freeze_backbone
        self.backbone = MODELS.build(backbone)
        widths, strides = _shapes_of(self.backbone)
        self.neck = FeaturePyramidNetwork(widths, channels, _coarser_levels(kind, widths[-1], channels))
        strides += [strides[-1] * 2**level for level in ((1,) if kind == 'faster_rcnn' else (1, 2))]
        self.detector = _build(kind, _Elsewhere(self._pyramid, channels), num_classes, strides, options or {})
        self.register_load_state_dict_pre_hook(_leave_out_other_classes)
        if freeze_backbone:
            self.backbone.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> 'TorchvisionDetector':
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def init_weights(self) -> None:
        """As in mmengine, but weights of the backbone that do not fit, or cannot be read, are an error."""
        check_pretrained(self.backbone, 'model.backbone')
        super().init_weights()

    def forward(self, inputs: torch.Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'):
        """The levels of the pyramid with ``mode='tensor'``; losses with ``'loss'``, data samples with ``'predict'``."""
        check_choice(('tensor', 'loss', 'predict'), mode=mode)
        if mode == 'tensor':
            return self.extract_feat(inputs)
        return self.loss(inputs, data_samples) if mode == 'loss' else self.predict(inputs, data_samples)

    def extract_feat(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self._pyramid(inputs).values())

    def loss(self, inputs: torch.Tensor, data_samples: list[DataSample]) -> dict[str, torch.Tensor]:
        first = int(self.kind == 'faster_rcnn')  # 0 is its background
        targets = [
            dict(
                boxes=sample.gt_instances.bboxes.to(inputs.device),
                labels=sample.gt_instances.labels.to(inputs.device) + first,
            )
            for sample in data_samples
        ]
        losses = self.detector(_without_padding(inputs, data_samples), targets)
        return {name if name.startswith('loss') else f'loss_{name}': value for name, value in losses.items()}

    def predict(self, inputs: torch.Tensor, data_samples: list[DataSample] | None = None) -> list[DataSample]:
        samples = data_samples or [DataSample() for _ in inputs]
        first = int(self.kind == 'faster_rcnn')
        results = []
        for sample, found in zip(samples, self.detector(_without_padding(inputs, samples)), strict=True):
            boxes = found['boxes']
            inside = (boxes[:, 2:] > boxes[:, :2]).all(1)  # RetinaNet and FCOS keep what clipping made empty
            result = sample.new()  # what was given stays as it is
            result.pred_instances = InstanceData(
                bboxes=boxes[inside], scores=found['scores'][inside], labels=found['labels'][inside] - first
            )
            if 'scale_factor' in sample:
                for name in {'pred_instances', 'gt_instances'} & set(result.keys()):
                    instances = result.get(name).new()
                    instances.bboxes = instances.bboxes / instances.bboxes.new_tensor(sample.scale_factor * 2)
                    result.set_data({name: instances})
            results.append(result)
        return results

    def _pyramid(self, inputs: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        return self.neck(OrderedDict((str(level), x) for level, x in enumerate(self.backbone(inputs))))


class _Elsewhere(nn.Module):
    """Stands where torchvision wants a backbone; the real one is its neighbour, so that weights keep their names."""

    def __init__(self, pyramid, out_channels: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.out_channels = out_channels

    def forward(self, inputs: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        return self.pyramid(inputs)


class _AsGiven(GeneralizedRCNNTransform):
    """Puts images into one batch, and does nothing else of what torchvision does here."""

    def __init__(self) -> None:
        super().__init__(min_size=1, max_size=1, image_mean=[0.0], image_std=[1.0])

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def resize(self, image: torch.Tensor, target: dict | None = None) -> tuple[torch.Tensor, dict | None]:
        return image, target


class _GroupNorm(nn.GroupNorm):
    """Takes a level of one pixel too, of one image, which torch refuses where a group is one channel."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def _build(kind: str, backbone: nn.Module, num_classes: int, strides: list[int], options: dict) -> nn.Module:
    if kind == 'faster_rcnn':
        pooled = [str(level) for level in range(len(strides) - 1)]
        parts = dict(
            rpn_anchor_generator=Anchors.of_faster_rcnn(strides),
            box_roi_pool=MultiScaleRoIAlign(pooled, output_size=7, sampling_ratio=2),
        )
        num_classes += 1
    else:
        parts = dict(anchor_generator=Anchors.of_fcos(strides) if kind == 'fcos' else Anchors.of_retinanet(strides))
    known = [name for name in signature(KINDS[kind]).parameters if name not in PREPARATION]
    if unknown := [name for name in options if name not in known]:
        raise UsageError(f'options: {KINDS[kind].__name__} has no {", ".join(unknown)}, but {", ".join(known)}')
    detector = KINDS[kind](backbone, num_classes, **{**parts, **options})
    detector.transform = _AsGiven()
    if kind == 'fcos':
        # Its distances pass through a ReLU; from torchvision's bias of 0 some runs began beyond it and never learned.
        nn.init.ones_(detector.head.regression_head.bbox_reg.bias)
        for layers in (detector.head.classification_head.conv, detector.head.regression_head.conv):
            for place, layer in enumerate(layers):
                if isinstance(layer, nn.GroupNorm):
                    layers[place] = _GroupNorm(layer.num_groups, layer.num_channels)
    heads = [detector.rpn.head, detector.roi_heads.box_predictor] if kind == 'faster_rcnn' else [detector.head]
    for head in heads:
        head.register_forward_hook(_put_out_float32)
    return detector


def _coarser_levels(kind: str, width: int, channels: int) -> nn.Module:
    """As in mmdet's configs: of RetinaNet from the backbone's last map, of FCOS from the last level."""
    if kind == 'faster_rcnn':
        return LastLevelMaxPool()
    levels = LastLevelP6P7(channels if kind == 'fcos' else width, channels)
    levels.use_P5 = kind == 'fcos'
    return levels


def _shapes_of(backbone: nn.Module, side: int = 128) -> tuple[list[int], list[int]]:
    """Channels and strides of the maps that a backbone puts out, found by trying."""
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            shapes = [tuple(x.shape) for x in backbone(torch.zeros(1, 3, side, side))]
        if not shapes:
            raise RuntimeError('out_indices is empty')
        widths, strides = [shape[1] for shape in shapes], [round(side / shape[3]) for shape in shapes]
    except (RuntimeError, AttributeError, IndexError, AssertionError) as error:
        raise UsageError(
            f'{type(backbone).__name__}: puts out no maps of an image of {side} x {side} ({first_line(error)})'
        ) from error
    finally:
        backbone.train(training)
    if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
        raise UsageError(
            f'{type(backbone).__name__}: its maps have strides {strides}, but each must be twice that of the one '
            'before: choose other out_indices'
        )
    return widths, strides


def _without_padding(inputs: torch.Tensor, samples: list[DataSample]) -> list[torch.Tensor]:
    """The images of a batch, each at the size that it came with."""
    sizes = [sample.get('img_shape') or inputs.shape[2:] for sample in samples]
    return [image[:, : size[0], : size[1]] for image, size in zip(inputs, sizes, strict=True)]


def _put_out_float32(module: nn.Module, inputs: tuple, outputs):
    return _in_float32(outputs)


def _in_float32(outputs):
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return {name: _in_float32(value) for name, value in outputs.items()}
    return type(outputs)(_in_float32(value) for value in outputs)


def _leave_out_other_classes(module: nn.Module, saved: dict, prefix: str, *_) -> None:
    own = module.state_dict()
    other = [
        name
        for name, value in own.items()
        if name.split('.')[-2] in CLASS_LAYERS and prefix + name in saved and saved[prefix + name].shape != value.shape
    ]
    for name in other:
        saved[prefix + name] = own[name]
    if other:
        print_log(
            f'{len(other)} weights of the class layer ({other[0]}, ...) are of another number of classes than '
            f'{module.num_classes}: they are left out and begin anew.',
            logger='current',
            level=logging.WARNING,
        )
