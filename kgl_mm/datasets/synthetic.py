"""Brushed and grained metal surfaces with defects, drawn from a seed and written in the layout of KolektorSDD.

Every defect has a harmless counterpart, drawn by the same routine from the same distributions of length, width and
contrast; only its *deviation* is zero. A crack or scratch along the grain is a tool mark, a pit or stain with a soft
round rim a speck or water mark. A defective image carries one defect in the place of one of its harmless marks, so that
statistics of brightness cannot tell good from bad.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from kgl_mm.errors import UsageError

VERSION = 1  # Raise it with every change of the pixels: it makes a new default folder.
SPLITS = ('train', 'val', 'test')
PARTS = 8
SUPERSAMPLING = 4


@dataclass(frozen=True)
class SurfaceSettings:
    """What decides the pixels. The counts are pairs (good, defective).

    ``difficulty`` in [0, 1] weakens and shrinks every mark and brings defects nearer to their harmless counterparts.
    """

    num_train: tuple[int, int] = (200, 200)
    num_val: tuple[int, int] = (0, 0)
    num_test: tuple[int, int] = (180, 60)
    size: tuple[int, int] = (64, 128)
    difficulty: float = 0.2
    seed: int = 0

    def __post_init__(self):
        for name in ('num_train', 'num_val', 'num_test', 'size'):
            pair = getattr(self, name)
            if not isinstance(pair, Sequence) or len(pair) != 2:
                what = '(height, width)' if name == 'size' else '(good, defective)'
                raise UsageError(f'SyntheticSurface: {name}={pair!r} is no pair {what}.')
            object.__setattr__(self, name, tuple(pair))
        if not 0 <= self.difficulty <= 1:
            raise UsageError(f'SyntheticSurface: difficulty is {self.difficulty}, choose a number from 0 to 1.')
        if min(self.size) < 64:
            raise UsageError(f'SyntheticSurface: size is {self.size}, choose 64 pixels or more for each side.')

    @property
    def folder_name(self) -> str:
        digest = sha256(json.dumps([VERSION, asdict(self)]).encode()).hexdigest()[:8]
        return f'{self.size[0]}x{self.size[1]}-difficulty{self.difficulty:g}-{digest}'


@dataclass(frozen=True)
class Kind:
    """Ranges that a defect shares with its counterpart.

    Contrast in standard deviations of the texture, length and width in pixels of an image whose short side is 64.
    """

    sign: int
    contrast: tuple[float, float]
    length: tuple[float, float]
    width: tuple[float, float]


KINDS = {
    'crack': Kind(-1, (4, 6), (22, 40), (1.2, 1.8)),
    'scratch': Kind(+1, (4, 6), (22, 40), (1.2, 1.8)),
    'pit': Kind(-1, (4, 6), (5, 7), (5, 7)),
    'stain': Kind(-1, (2, 3), (14, 22), (10, 16)),
}


def _noise(rng: np.random.Generator, shape: tuple[int, int], sigmas: tuple[float, float], angle: float) -> np.ndarray:
    """Gaussian noise of deviation 1, correlated over ``sigmas`` pixels along and across ``angle`` (a small one)."""
    kernels = [cv2.getGaussianKernel(2 * int(2.5 * sigma) + 3, sigma) for sigma in sigmas]
    margin = int(2.5 * max(sigmas)) + 1 + int(abs(np.sin(angle)) * max(shape))
    white = rng.standard_normal([side + 2 * margin for side in shape], dtype=np.float32)
    straight = cv2.sepFilter2D(white, -1, *(kernel / np.linalg.norm(kernel) for kernel in kernels))
    centre = white.shape[1] / 2, white.shape[0] / 2
    turned = cv2.warpAffine(straight, cv2.getRotationMatrix2D(centre, -np.degrees(angle), 1), white.shape[::-1])
    return turned[margin:-margin, margin:-margin]


class Surface:
    """The texture of a unit: its parts look alike and differ in noise and light."""

    def __init__(self, rng: np.random.Generator):
        self.level = rng.uniform(95, 160)
        self.amplitude = rng.uniform(6, 10)
        self.grain = rng.normal(0, 0.06)
        if rng.random() < 0.5:  # Brushed.
            self.sigmas = rng.uniform(8, 20), rng.uniform(0.5, 0.9)
        else:  # Grained.
            self.sigmas = rng.uniform(1.0, 1.8), rng.uniform(0.8, 1.2)
        self.light = rng.normal(0, 8, 3)

    def draw(self, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Texture of deviation 1 and uneven light in gray levels, both of ``shape``."""
        y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
        slope_x, slope_y, vignette = self.light + rng.normal(0, 3, 3)
        light = self.level + slope_x * x + slope_y * y[:, None] - abs(vignette) * (x**2 + y[:, None] ** 2)
        coarse, fine = _noise(rng, shape, self.sigmas, self.grain), _noise(rng, shape, (0.6, 0.6), 0)
        return 0.85 * coarse + 0.53 * fine, light


def _stroke(rng, shape, length: float, width: float, heading: float, jag: float) -> np.ndarray:
    """A tapering line of a given path length, whose steps scatter about ``heading`` by ``jag`` (all in radians)."""
    steps = max(int(length / 3), 4)
    headings = heading + jag * rng.standard_normal(steps) + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, steps)
    moves = length / steps * np.stack([np.cos(headings), np.sin(headings)], 1)
    points = np.concatenate([np.zeros((1, 2)), np.cumsum(moves, 0)])
    points += _place(rng, shape, points.min(0), points.max(0), width)
    canvas = np.zeros([side * SUPERSAMPLING for side in shape], np.uint8)
    corners = (points * SUPERSAMPLING).round().astype(int)
    taper = np.clip(np.linspace(0, 5, steps), 0.5, 1)
    for start, end, thickness in zip(corners[:-1], corners[1:], width * np.minimum(taper, taper[::-1]), strict=True):
        cv2.line(canvas, start.tolist(), end.tolist(), 255, max(round(thickness * SUPERSAMPLING), 1))
    alpha = cv2.resize(canvas, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    return alpha / alpha.max()


def _blob(rng, shape, length: float, width: float, heading: float, ragged: float, soft: float) -> np.ndarray:
    """An ellipse with axes ``length`` and ``width``, a rim uneven by ``ragged`` and an edge ``soft``, both in radii."""
    radius = np.sqrt(length * width) / 2
    reach = np.full(2, length / 2 * (1 + 2 * ragged) + radius * soft / 2)
    centre_x, centre_y = _place(rng, shape, -reach, reach, 1)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) - np.float32([centre_y, centre_x])[:, None, None]
    along = (x * np.cos(heading) + y * np.sin(heading)) * 2 / length
    across = (y * np.cos(heading) - x * np.sin(heading)) * 2 / width
    theta = np.linspace(-np.pi, np.pi, 181)
    waves = sum(rng.normal() * np.cos(k * theta + rng.uniform(0, 2 * np.pi)) for k in range(3, 10))
    rim = np.clip(1 + ragged * waves / np.sqrt(3.5), 0.4, 1 + 2 * ragged)
    rim /= np.sqrt(1 + ragged**2)  # A wavy rim encloses more than a circle of the same mean radius.
    rim = np.interp(np.arctan2(across, along), theta, rim)
    alpha = np.clip((rim - np.hypot(along, across)) / max(soft, 1 / radius) + 0.5, 0, 1)
    return alpha / alpha.max()


def _place(rng, shape, low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
    """A shift (x, y) that brings the box from ``low`` to ``high`` into the image."""
    first = margin + 1 - low
    return rng.uniform(first, np.maximum(first, np.array(shape[::-1]) - margin - 2 - high))


def draw_mark(rng, shape, kind: str, defective: bool, grain: float, difficulty: float) -> tuple[np.ndarray, float]:
    """Its alpha in [0, 1] and its signed contrast in deviations of the texture."""
    this, scale = KINDS[kind], min(shape) / 64 * (1.2 - 0.4 * difficulty)
    length, width = rng.uniform(*this.length) * scale, rng.uniform(*this.width) * scale
    contrast = this.sign * rng.uniform(*this.contrast) * (1.5 - 1.1 * difficulty)
    deviation = (1 - 0.6 * difficulty) if defective else 0
    if kind in ('crack', 'scratch'):
        heading = grain + rng.normal(0, 0.05) + deviation * rng.uniform(0.8, np.pi / 2) * rng.choice([-1, 1])
        alpha = _stroke(rng, shape, length, width, heading, deviation if kind == 'crack' else 0)
    else:
        alpha = _blob(rng, shape, length, width, rng.uniform(0, np.pi), 0.25 * deviation, 1.2 * (1 - deviation))
    return alpha, contrast


def draw_part(surface: Surface, rng, shape, defective: bool, difficulty: float) -> tuple[np.ndarray, np.ndarray]:
    """A gray image and the support of its defect (255, empty on a good part), both uint8 of ``shape``."""
    texture, light = surface.draw(rng, shape)
    mask = np.zeros(shape, np.uint8)
    for i, kind in enumerate(rng.choice(list(KINDS), rng.integers(2, 5))):
        alpha, contrast = draw_mark(rng, shape, kind, defective and i == 0, surface.grain, difficulty)
        texture += contrast * alpha
        if defective and i == 0:
            mask[alpha > 0.25] = 255
    return np.clip(light + surface.amplitude * texture, 0, 255).round().astype(np.uint8), mask


def write_surfaces(folder: Path, settings: SurfaceSettings, progress: Callable[[list], Iterable] = iter) -> None:
    """Write the set once: a folder is complete or absent, whoever is killed and however many processes write at once.

    ``progress`` wraps the list of images while they are drawn. A folder that holds other settings is refused.
    """
    folder = Path(folder)
    plan, units = [], {}
    first = 1
    for s, split in enumerate(SPLITS):
        good, defective = getattr(settings, f'num_{split}')
        labels = np.repeat([False, True], [good, defective])
        np.random.default_rng((settings.seed, s, 0, PARTS + 1)).shuffle(labels)
        numbers = range(first, first + -(-len(labels) // PARTS))
        units[split] = [f'kos{number:03d}' for number in numbers]
        plan += [(s, i // PARTS, i % PARTS, units[split][i // PARTS], bool(label)) for i, label in enumerate(labels)]
        first = numbers.stop
    record = json.dumps(dict(made_by=__name__, version=VERSION, **asdict(settings), units=units), indent=1)
    if folder.exists():
        return _check_same(folder, record)

    building = folder.with_name(f'.{folder.name}.{uuid.uuid4().hex}')
    try:
        for s, unit, part, name, defective in progress(plan):
            surface = Surface(np.random.default_rng((settings.seed, s, unit, PARTS)))
            rng = np.random.default_rng((settings.seed, s, unit, part))
            image, mask = draw_part(surface, rng, settings.size, defective, settings.difficulty)
            (building / name).mkdir(parents=True, exist_ok=True)
            (building / name / f'Part{part}.png').write_bytes(cv2.imencode('.png', image)[1].tobytes())
            (building / name / f'Part{part}_label.bmp').write_bytes(cv2.imencode('.bmp', mask)[1].tobytes())
        (building / 'settings.json').write_text(record)
        building.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        _check_same(folder, record)  # Another process was faster.
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _check_same(folder: Path, record: str) -> None:
    settings = folder / 'settings.json'
    if not settings.is_file() or settings.read_text() != record:
        raise UsageError(
            f'{folder}: holds other data than the surfaces asked for; remove it or choose another data_root.'
        )
