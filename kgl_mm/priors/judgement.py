"""Whether a source of priors has learned enough to teach."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kgl_mm.evaluation.functional import auroc, average_precision

ENOUGH = {'validation data': (0.2, 0.5), 'images left out': (0.2, 0.5), 'its training images': (0.3, 0.6)}
"""By what it was judged on: the skill up to which guidance is 0, and from which it is 1.

Skill is 2 AUROC - 1: 0 for guessing, 1 for no error, however few images are defective. On the images that it was
trained with, a network looks better than it is.
"""
ALIKE = (0.1, 0.3)
"""The same for the agreement of maps under flips; sources that know what they see agree at 0.5 and more."""


class Judgement(NamedTuple):
    """How much to trust a source, 0 to 1, and why, in words; ``weak`` where it is below the bar."""

    weight: float
    reason: str

    @property
    def weak(self) -> bool:
        return self.weight < 1


def judge(
    entries: Sequence[dict],
    labels: Sequence[int],
    validation: dict | None = None,
    left_out: bool = False,
    by_skill: bool = True,
) -> Judgement:
    """Judge a source by the entries of its maps in a store, and the labels of their images.

    Skill counts on validation data where ``validation`` has the metrics of them (``AUROC``, ``AP``, ``num_defects``,
    ``num_images``), and on the images themselves, by the evidence written with each map; ``left_out`` says that
    the source was not trained with them. The better of the two counts: a network that is lost on other images may still
    know where to look in those that it was trained with, and these are what it teaches by. It is left out where not
    ``by_skill``: a source that good parts or words have taught teaches well also where it ranks images badly. The
    agreement of the maps of defective images under flips counts as well. What is not known is not held against a
    source, and what a person painted is not judged.
    """
    labels = np.asarray(labels) != 0
    reasons, skills = [], []
    by_source = [(entry, label) for entry, label in zip(entries, labels, strict=True) if not entry.get('edited')]
    if by_skill and by_source and validation and 'AUROC' in validation:
        share = validation['num_defects'] / validation['num_images']
        skills.append(_skill(validation['AUROC'], validation['AP'], share, 'validation data', reasons))
    if by_skill and by_source and all('evidence' in entry for entry, _ in by_source):
        of = np.array([label for _, label in by_source])
        if of.any() and not of.all():
            scores = [entry['evidence'] for entry, _ in by_source]
            where = 'images left out' if left_out else 'its training images'
            skills.append(_skill(auroc(scores, of), average_precision(scores, of), of.mean(), where, reasons))
    weight = max(skills, default=1.0)
    agreement = [entry['trust'] for entry, label in by_source if label and 'trust' in entry]
    if agreement:
        reasons.append(f'its maps agree by {np.mean(agreement):.2f} under flips')
        weight = min(weight, _ramp(float(np.mean(agreement)), *ALIKE))
    peaks = [np.mean([e['peak'] for e, label in by_source if label == which] or [0]) for which in (False, True)]
    if peaks[1] and not labels.all():
        reasons.append(f'good images glow {peaks[0] / peaks[1]:.2f} times as bright as defective ones')
    return Judgement(round(weight, 3), ', '.join(reasons) or 'nothing is known of its source')


def _skill(area: float, precision: float, share: float, where: str, reasons: list[str]) -> float:
    reasons.append(f'AUROC {area:.2f} (chance 0.50) and AP {precision:.2f} (chance {share:.2f}) on {where}')
    return _ramp(2 * area - 1, *ENOUGH[where])


def _ramp(value: float, low: float, high: float) -> float:
    return float(np.clip((value - low) / (high - low), 0, 1))
