"""What is known of a kind of defect before anybody has seen one."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from kgl_mm.errors import UsageError, check_choice, check_number

from .vocabulary import (
    DEFAULTS,
    EDGES,
    NUMBERS,
    RESERVED,
    ROUND,
    SCALES,
    SHAPES,
    TEXTURES,
    TONES,
    nearest,
    nearest_orientation,
    plural,
)

TEXT = re.compile(r"[^\W_]+(?:[-' ][^\W_]+)*")
LIMITS = dict(contrast=(0.001, 1), length=(0.0001, 4), width=(0.0001, 4))
MOST = 200


@dataclass(frozen=True)
class Description:
    """How a kind of defect looks on an object.

    Ranges are pairs (low, high) of which each defect draws its own value; one number stands for both ends.

    Attributes:
        object: what the defect is on, in words, such as ``'steel plate'``.
        kind: its name in words, such as ``'crack'``.
        tone: ``'dark'`` or ``'bright'`` against what surrounds it, or ``'mixed'``: here darker, there brighter.
        contrast: how far its brightness is from that around it, as a share of that, up to 1.
        shape: ``'line'``, ``'blob'``, ``'patch'`` (a ragged area of uneven strength), ``'band'`` (a straight strip of
            one width) or ``'ring'``.
        length: as a share of the shorter side of the image: of a line or band its length, else the larger diameter.
        width: as a share of the same side: of a blob or patch the smaller diameter, else the thickness of the stroke.
        orientation: degrees from the horizontal, counterclockwise, of its length; or ``'any'``.
        edge: ``'sharp'``, or ``'soft'``: it fades out.
        texture: ``'smooth'``: even, a line bends gently; ``'rough'``: grainy, jagged; ``'speckled'``: broken to grains.
        count: how many of them an image has.

    >>> Description('steel plate', 'crack', shape='line', length=0.5).sentence()
    'steel plate with crack defect, it appears as a single clear dark line, long and thin, at any angle, with sharp \
edges and a smooth texture'
    """

    object: str
    kind: str
    tone: str = 'dark'
    contrast: tuple[float, float] = SCALES['contrast']['clear']
    shape: str = 'blob'
    length: tuple[float, float] | None = None
    width: tuple[float, float] | None = None
    orientation: tuple[float, float] | str = 'any'
    edge: str = 'sharp'
    texture: str = 'smooth'
    count: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        for name in ('object', 'kind'):
            _check_text(name, getattr(self, name))
        check_choice(SHAPES, shape=self.shape)
        check_choice(TONES, tone=self.tone)
        check_choice(EDGES, edge=self.edge)
        check_choice(TEXTURES, texture=self.texture)
        for name, limits in LIMITS.items():
            value = getattr(self, name)
            if value is None:
                value = usual(self.shape, name, self.length if name == 'width' else None)
            self._set(name, _range(name, value, *limits))
        if self.orientation != 'any':
            if isinstance(self.orientation, str):
                raise UsageError(f"orientation={self.orientation!r}: not a range of degrees, nor 'any'")
            self._set('orientation', _range('orientation', self.orientation, -180, 180))
        self._set('count', _range('count', self.count, 1, MOST, whole=True))

    def _set(self, name: str, value: tuple) -> None:
        object.__setattr__(self, name, value)

    def features(self) -> str:
        """Its looks in words of the vocabulary: where a value is between two of them, the nearer one."""
        length, width = nearest('length', self.length), _width_in_words(self)
        if self.shape in ('line', 'band'):
            length = length.replace('small', 'short').replace('large', 'long')
        low, high = self.count
        number = NUMBERS[low - 2] if 2 <= low == high < len(NUMBERS) + 2 else nearest('count', self.count)
        shape = self.shape if number == 'a single' else plural(self.shape)
        tone = self.tone.replace('mixed', 'dark and bright')
        return (
            f'{number} {nearest("contrast", self.contrast)} {tone} {shape}, {length} and {width}, '
            f'{nearest_orientation(self.orientation)}, with {self.edge} edges and a {self.texture} texture'
        )

    def sentence(self) -> str:
        """The record in plain English, from which :func:`~kgl_mm.descriptions.parse` makes one of the same words."""
        return f'{self.object} with {self.kind} defect, it appears as {self.features()}'


def usual(shape: str, field: str, length: tuple[float, float] | None = None) -> tuple[float, float]:
    """Length or width of a shape where nothing is said of it."""
    name = DEFAULTS[shape][field == 'width']
    if field == 'width' and shape in ROUND:
        return in_proportion(length or usual(shape, 'length'), name)
    return SCALES[field][name]


def in_proportion(length: tuple[float, float], proportions: str) -> tuple[float, float]:
    """The width of what is so long and, say, oval."""
    share = SCALES['proportions'][proportions]
    low, high = length
    return low * share, high * share


def proportions_of(record: Description) -> str:
    middle = math.sqrt(record.width[0] * record.width[1] / (record.length[0] * record.length[1]))
    return nearest('proportions', min(middle, 1 / middle))


def _width_in_words(record: Description) -> str:
    return proportions_of(record) if record.shape in ROUND else nearest('width', record.width)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not TEXT.fullmatch(value):
        raise UsageError(f'{name}={value!r:.60}: not a name in plain words, such as {_example(name)}')
    if used := sorted(RESERVED & set(value.lower().split())):
        raise UsageError(f'{name}={value!r:.60}: leave out {", ".join(used)}, at which sentences are cut')


def _example(name: str) -> str:
    return repr('steel plate' if name == 'object' else 'crack')


def _range(name: str, value: object, low: float, high: float, whole: bool = False) -> tuple:
    if isinstance(value, Real):
        value = (value, value)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise UsageError(f'{name}={value!r}: not a number nor a pair [low, high]')
    for end in value:
        check_number(low, high, whole=whole, **{name: end})
    if value[0] > value[1]:
        raise UsageError(f'{name}={list(value)}: the first of the two must not be above the second')
    return tuple((int if whole else float)(end) for end in value)
