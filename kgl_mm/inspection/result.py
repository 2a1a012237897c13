"""What an inspector says of an image."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from kgl_mm.errors import UsageError
from kgl_mm.evaluation.functional import event_probability
from kgl_mm.evaluation.thresholds import origin
from kgl_mm.files import write_atomically
from kgl_mm.visualization import draw_verdict

from .images import Source
from .regions import Region, find_regions


@dataclass(frozen=True)
class Threshold:
    """A score of at least ``value`` is called defective; ``aim`` is what it was chosen for on validation data."""

    value: float = 0.5
    calibrated: bool = False
    aim: str | None = None

    def __str__(self) -> str:
        return f'{self.value:.3f} ({origin(self.calibrated, self.aim)})'


@dataclass(frozen=True)
class Judge:
    """What turns probabilities into a verdict: the names of the classes, whether the first is good, the threshold."""

    classes: tuple[str, ...]
    has_good: bool = True
    threshold: Threshold | None = field(default_factory=Threshold)


@dataclass(frozen=True, eq=False)
class Result:
    """The verdict on an image.

    It keeps no pixels of a file: pictures read it again. ``map`` is what the network sees, in [0, 1], over the whole
    image, with pixels as large as those that it looks at, and 0 where it does not look; None where it has no maps.
    """

    source: Source
    size: tuple[int, int]
    """Width and height of the image."""
    probabilities: tuple[float, ...]
    """Of each class."""
    map: np.ndarray | None
    judge: Judge

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def path(self) -> Path | None:
        return self.source.path

    @property
    def threshold(self) -> Threshold | None:
        """None where no class is good."""
        return self.judge.threshold if self.judge.has_good else None

    @cached_property
    def score(self) -> float:
        """The probability of a defect; where no class is good, that of the label."""
        if not self.judge.has_good:
            return max(self.probabilities)
        return float(event_probability(np.array([self.probabilities]))[0])

    @property
    def is_defective(self) -> bool | None:
        """None where no class is good."""
        return self.score >= self.threshold.value if self.judge.has_good else None

    @cached_property
    def label(self) -> str:
        """The most probable class among those that the verdict allows, so that label and verdict agree."""
        allowed = np.array(self.probabilities)
        if self.is_defective is not None:
            allowed[slice(1) if self.is_defective else slice(1, None)] = -1
        return self.judge.classes[int(allowed.argmax())]

    @property
    def heat_map(self) -> np.ndarray | None:
        """The map at the size of the image, float32 H x W."""
        return None if self.map is None else cv2.resize(self.map, self.size, interpolation=cv2.INTER_LINEAR)

    @cached_property
    def regions(self) -> list[Region]:
        """Where the defect is, the hottest part first; a good part has none."""
        if self.map is None or self.is_defective is False:
            return []
        return find_regions(self.map, self.size)

    def __str__(self) -> str:
        regions = f', {len(self.regions)} region{"s" * (len(self.regions) != 1)}' if self.regions else ''
        return f'{self.label} {self.score:.4f}{regions}'

    def draw(self, longest: int = 1600) -> np.ndarray:
        """The image with heat map, regions and verdict, BGR, no side longer than ``longest`` pixels.

        Hottest is twice the threshold, since a map is about as high as the score that it speaks for.
        """
        caption = f'{self.label} {self.score:.3f}'
        if self.threshold:
            caption += f', threshold {self.threshold}'
        return draw_verdict(
            self.source.read(),
            self.map,
            [region.polygon for region in self.regions],
            [region.box for region in self.regions],
            caption,
            self.is_defective,
            longest,
            min(1.0, max(2 * self.threshold.value, 1e-3)) if self.threshold else 1.0,
        )

    def save(self, path: str | Path) -> Path:
        """Write the picture, in the format that the name ends in."""
        path = Path(path)
        try:
            data = cv2.imencode(path.suffix, self.draw())[1].tobytes()
        except cv2.error:
            raise UsageError(f'{path}: not the name of a picture, such as one that ends in .png') from None
        try:
            write_atomically(path, data)
        except OSError as error:
            raise UsageError(f'{path}: cannot be written ({error.strerror})') from None
        return path

    def as_dict(self) -> dict:
        """Plain values, fit for JSON; the first four by the names that mmpretrain's inferencer gives them."""
        return dict(
            pred_scores=list(self.probabilities),
            pred_label=self.judge.classes.index(self.label),
            pred_score=self.probabilities[self.judge.classes.index(self.label)],
            pred_class=self.label,
            image=self.name,
            size=list(self.size),
            score=self.score,
            defective=self.is_defective,
            threshold=self.threshold and self.threshold.value,
            calibrated=self.threshold and self.threshold.calibrated,
            regions=[vars(region) for region in self.regions],
        )
