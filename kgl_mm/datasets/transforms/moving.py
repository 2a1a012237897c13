"""Priors and masks move with their image, whatever transform moves it."""

from collections.abc import Callable, Iterator
from copy import deepcopy

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose, RandomApply, RandomChoice
from mmpretrain.datasets.transforms.processing import TorchVisonTransformWrapper
from PIL import Image

from kgl_mm.datasets.seeding import random_states, set_random_states
from kgl_mm.errors import UsageError
from kgl_mm.registry import TRANSFORMS

MAPS = ('prior', 'prior_mask', 'gt_seg_map')
PACKAGES = {'mmcv', 'mmpretrain', 'torchvision', 'kgl_mm'}


def _names(text: str) -> set[str]:
    return set(text.split())


# All transforms of these packages are here but those of which only their user can tell (Lambda, KeyMapper,
# Albumentations, ...) and the containers below; a test compares them with what is registered.
WHOLE = _names('RandomChoiceResize RandomResize Resize ResizeEdge')
"""They leave nothing of the image out, so that a map can be laid over it afterwards."""
FILLING = _names("""
    CenterCrop Pad RandomCrop Rotate Shear Translate torchvision/ElasticTransform torchvision/Pad
    torchvision/RandomAffine torchvision/RandomCrop torchvision/RandomPerspective torchvision/RandomRotation
""")
"""They may show what lies outside the image, in any colour."""
GEOMETRIC = WHOLE | FILLING
GEOMETRIC |= _names("""
    EfficientNetCenterCrop EfficientNetRandomCrop MAERandomResizedCrop RandomFlip RandomResizedCrop RandomTranslatePad
    torchvision/CenterCrop torchvision/RandomHorizontalFlip torchvision/RandomResizedCrop
    torchvision/RandomVerticalFlip torchvision/Resize
""")
PHOTOMETRIC = _names("""
    AutoContrast Brightness ColorJitter ColorTransform Contrast Cutout Equalize GaussianBlur Invert Lighting Normalize
    Posterize RandomErasing RandomGrayscale Sharpness Solarize SolarizeAdd torchvision/ColorJitter
    torchvision/GaussianBlur torchvision/Grayscale torchvision/Normalize torchvision/RandomAdjustSharpness
    torchvision/RandomAutocontrast torchvision/RandomEqualize torchvision/RandomErasing torchvision/RandomGrayscale
    torchvision/RandomInvert torchvision/RandomPosterize torchvision/RandomSolarize
""")
NEITHER = _names("""
    BEiTMaskGenerator BinarizePrior CleanCaption Collect DenormalizeKeypointLocation ImageToTensor LoadAnnotations
    LoadImageFromFile LoadMask LoadPrior NormalizeKeypointLocation NumpyToPIL OFAAddObjects PackBoxes PackDefect
    PackInputs PackMultiTaskInputs PILToNumpy SimMIMMaskGenerator SynthesizeDefect ToTensor
    torchvision/ConvertImageDtype torchvision/PILToTensor torchvision/ToPILImage torchvision/ToTensor
""")
MIXED = _names("""
    AutoAugment RandAugment torchvision/AugMix torchvision/AutoAugment torchvision/RandAugment
    torchvision/TrivialAugmentWide
""")
SEVERAL = _names("""
    ApplyToList MultiScaleFlipAug MultiView RandomResizedCropAndInterpolationWithTwoPic TestTimeAug
    TransformBroadcaster torchvision/FiveCrop torchvision/TenCrop
""")


def let_priors_move(transforms: list) -> None:
    """Wrap each transform that moves the image behind one that loads or draws a prior in ``Moved``, in place.

    Those inside mmcv's ``Compose``, ``RandomApply`` and ``RandomChoice`` as well; a second call changes nothing, and so
    does one without ``LoadPrior`` and ``SynthesizeDefect``, whose ``geometric`` and ``photometric`` have the names of a
    user's own transforms.

    Raises:
        UsageError: a transform is neither known nor named, or moves the image or needs its prior before ``LoadPrior``.
    """
    leaves = list(_leaves(transforms))
    loads = [place for place, (*_, transform) in enumerate(leaves) if getattr(transform, 'loads_prior', False)]
    draws = [place for place, (*_, transform) in enumerate(leaves) if getattr(transform, 'draws_prior', False)]
    places = sorted(loads + draws)
    if not places:
        return
    if loads and any(getattr(transform, 'needs_prior', False) for *_, transform in leaves[: loads[0]]):
        raise UsageError('BinarizePrior: there is no prior yet; put kgl_mm.LoadPrior before it')
    sources = [leaves[place][-1] for place in places]
    geometric = [name for source in sources for name in source.geometric]
    photometric = [name for source in sources for name in source.photometric]
    for place, (siblings, index, transform) in enumerate(leaves):
        if place in places or (not loads and place < places[0]) or not _moves(transform, geometric, photometric):
            continue
        if place > places[0]:
            siblings[index] = transform if isinstance(transform, Moved) else Moved(transform)
        if loads and place < loads[0] and not _is_in(WHOLE, transform):
            name = name_of(transform)
            raise UsageError(
                f'{name} moves the image before its prior is there, which fits the whole image: put LoadPrior before '
                f'{name}'
            )


@TRANSFORMS.register_module()
class Moved(BaseTransform):
    """Lets prior and masks follow what a transform does to the image, which is what it would be without them.

    The transform is repeated, with the same random numbers, on a picture whose channels are the maps. What comes from
    outside the image is 0 in them: the values of a picture go into the result linearly, so what the transform makes of
    a black one is the fill, and is taken away. Maps keep their types, and what was binary stays so (cut at one half).

    Transforms of mmcv and mmpretrain that are known get the maps as float32, which keeps 16-bit priors exact. All
    else, PIL images and the ``pillow`` backend get them in the type of the image: 8 bits round to 1/255. A transform
    that is not known sees the maps as well, so that it can aim at a defect; it must not aim by the content of ``img``.
    It is repeated on the image first: if it does not give the same again, the maps cannot follow it.

    **Required keys:** ``img`` (array, PIL image, or tensor C x H x W). **Modified keys:** ``prior``, ``prior_mask``
    (float32 H x W in [0, 1]) and ``gt_seg_map`` (uint8 H x W of 0 and 1) where they are there, and the transform's.

    Args:
        transform: one that moves ``img``, or its config.
    """

    def __init__(self, transform: dict | Callable) -> None:
        self.inner = TRANSFORMS.build(transform) if isinstance(transform, dict) else transform
        self._known = _is_in(GEOMETRIC, self.inner)
        self._fills = not self._known or _is_in(FILLING, self.inner)

    def transform(self, results: dict) -> dict | None:
        maps = {name: results[name] for name in MAPS if results.get(name) is not None}
        if not maps:
            return self.inner(results)
        image = results['img']
        like = _channels(image)
        for name, values in maps.items():
            if values.shape != like.shape[:2]:
                raise UsageError(
                    f'{name} is {values.shape} and the image {like.shape[:2]} before {name_of(self)}: a transform '
                    "before it moves the image alone, so name that in LoadPrior(geometric=['...'])"
                )
        # what is known needs no maps, and mmcv's would move gt_seg_map in their own way
        unseen = {'img', *maps} if self._known else set()
        twin = deepcopy((self.inner, {key: value for key, value in results.items() if key not in unseen}))
        maps = {name: twin[1].get(name, values) for name, values in maps.items()}  # the copy, where one is shown
        before = random_states()
        moved = self.inner({key: value for key, value in results.items() if key == 'img' or key not in unseen})
        if moved is None:
            return None
        if self._known and moved['img'] is image:  # a gate that stayed shut
            return moved | maps

        def repeat(image: object) -> np.ndarray:  # leaves the random states as the first run did
            set_random_states(before)
            inner, rest = deepcopy(twin)
            return _channels(inner(rest | dict(img=image))['img'])

        if not self._known and not np.array_equal(repeat(twin[1]['img']), _channels(moved['img'])):
            raise UsageError(
                f'{name_of(self)} cannot be repeated, so that no prior can follow it: let it draw from random, '
                'numpy.random, torch or a generator that is an attribute of it'
            )
        values = self._repeat_on(list(maps.values()), image, like, repeat)
        for (name, old), new in zip(maps.items(), values, strict=True):
            is_binary = name != 'prior' and np.array_equal(old, old != 0)
            moved[name] = (new >= 0.5 if is_binary else new.clip(0, 1, out=new)).astype(old.dtype, copy=False)
        return moved

    def _repeat_on(self, maps: list, image: object, like: np.ndarray, repeat: Callable) -> list[np.ndarray]:
        """What a repetition makes of maps; they are the channels of one picture, or more where an image has few."""
        backend = getattr(getattr(self.inner, 'resize', self.inner), 'backend', None)
        takes_floats = self._known and isinstance(image, np.ndarray) and backend != 'pillow'
        dtype = np.dtype(np.float32) if takes_floats else like.dtype
        white = np.float32(1 if dtype.kind == 'f' else np.iinfo(dtype).max)
        picture, channels = np.zeros(like.shape, dtype), like.shape[2]  # one piece of memory, as fresh pages are dear
        moved = []
        for start in range(0, len(maps), channels):
            few = maps[start : start + channels]
            for channel, values in enumerate(few):
                picture[..., channel] = values if dtype.kind == 'f' else np.rint(values * white)
            result = repeat(_of_the_kind_of(image, picture))
            moved += [result[..., channel].astype(np.float32) for channel in range(len(few))]
        if self._fills:
            picture[:] = 0
            fill = repeat(_of_the_kind_of(image, picture))
            for index, values in enumerate(moved):
                values -= fill[..., index % channels]
        if white != 1:
            for values in moved:
                values /= white
        return moved

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.inner})'


def _moves(transform: object, geometric: tuple[str, ...], photometric: tuple[str, ...]) -> bool:
    name = name_of(transform)
    if isinstance(transform, Moved) or _is_in(GEOMETRIC, transform):
        return True
    if _is_in(PHOTOMETRIC | NEITHER, transform):
        return False
    if name in geometric or name in photometric:
        return name in geometric
    if _is_in(MIXED, transform):
        raise UsageError(
            f'{name} both moves and recolours the image, and a prior must follow the one only: use its operations '
            'apart, such as Rotate, Shear, Translate and ColorJitter'
        )
    if _is_in(SEVERAL, transform):
        raise UsageError(f'{name} makes several images of one, which share no prior: leave it out where LoadPrior is')
    raise UsageError(
        f"nobody knows whether {name} moves the image: write LoadPrior(geometric=['{name}']) if it does, "
        f"LoadPrior(photometric=['{name}']) if everything keeps its place"
    )


def innermost_of(transforms: list) -> list:
    """The transforms that hold no others, in order."""
    return [transform for _, _, transform in _leaves(transforms)]


def _leaves(transforms: list) -> Iterator[tuple[list, int, object]]:
    """Each transform that holds no others, in order, and before it the list that it stands in and its place there."""
    for index, transform in enumerate(transforms):
        if type(transform) in (Compose, RandomApply, RandomChoice):
            inner = transform.transforms
            yield from _leaves(inner if isinstance(inner, list) else [inner])
        else:
            yield transforms, index, transform


def _class(transform: object) -> tuple[str, type]:
    """The name of a transform as a config writes it, and the class that does the work."""
    if isinstance(transform, Moved):
        return _class(transform.inner)
    if type(transform) is TorchVisonTransformWrapper:
        return f'torchvision/{type(transform.t).__name__}', type(transform.t)
    return getattr(transform, '__name__', type(transform).__name__), type(transform)


def name_of(transform: object) -> str:
    """As a config writes it."""
    return _class(transform)[0]


def _is_in(table: set[str], transform: object) -> bool:
    name, kind = _class(transform)
    return name in table and kind.__module__.split('.')[0] in PACKAGES


def _channels(image: object) -> np.ndarray:
    """H x W x C, whatever an image is."""
    array = np.asarray(image)
    if isinstance(image, torch.Tensor):
        array = np.moveaxis(array, 0, -1)
    return array.reshape(*array.shape[:2], -1)


def _of_the_kind_of(image: object, picture: np.ndarray) -> object:
    if isinstance(image, torch.Tensor):
        return torch.from_numpy(picture.transpose(2, 0, 1))
    picture = picture.reshape(np.shape(image))
    return Image.fromarray(picture) if isinstance(image, Image.Image) else picture
