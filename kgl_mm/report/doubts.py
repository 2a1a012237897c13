"""Which labels and which priors deserve a second look; pure functions on what a store says of its maps."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kgl_mm.evaluation.functional import auroc


class Doubt(NamedTuple):
    """How far the evidence of an image speaks against its label; below 0 it speaks for it."""

    key: str
    label: int
    evidence: float
    against: float


def doubts(sources: Sequence[Sequence[dict]]) -> list[Doubt]:
    """All judged images, the most doubtful label first.

    Evidence is a network's own log-odds, so it speaks against a label from 0 on. Of a source that leans so far to a
    side that 0 is not between what is typical of its good and of its defective images, from halfway between these on.
    It is not halfway always, since defects that stand out would cast doubt on plainer ones.

    Args:
        sources: for each source of evidence the entries of a store; those without ``evidence`` or ``label``, such as
            maps that a person painted, are left out.

    >>> entries = [dict(key=str(i), label=i % 2, evidence=e) for i, e in enumerate([-2, 2, 1, 9, -2])]
    >>> [(doubt.key, doubt.against) for doubt in doubts([entries])][:2]
    [('2', 1.0), ('0', -2.0)]
    """
    found = []
    for entries in sources:
        known = [e for e in entries if 'evidence' in e and 'label' in e and np.isfinite(e['evidence'])]
        labels = np.array([bool(entry['label']) for entry in known], bool)
        evidence = np.array([entry['evidence'] for entry in known], float)
        centre = 0.0
        if labels.any() and not labels.all():
            good, defective = np.median(evidence[~labels]), np.median(evidence[labels])
            centre = 0.0 if good < 0 < defective else float(good + defective) / 2
        for entry, label, value in zip(known, labels, evidence, strict=True):
            against = (centre - value) if label else (value - centre)
            found.append(Doubt(entry['key'], int(label), float(value), float(against)))
    return sorted(found, key=lambda doubt: (-doubt.against, doubt.key))


def tells_apart(found: Sequence[Doubt]) -> float:
    """How well the centred evidence tells the labels apart, as AUROC; there are labels of both kinds."""
    labels = [doubt.label for doubt in found]
    return auroc([-doubt.against if doubt.label else doubt.against for doubt in found], labels)


def least_trusted(entries: Sequence[dict], number: int) -> list[dict]:
    """The maps of defective images that agree least under flips; those that a person painted are beyond doubt."""
    known = [entry for entry in entries if entry.get('label', 1) and 'trust' in entry and not entry.get('edited')]
    return sorted(known, key=lambda entry: (entry['trust'], entry['key']))[:number]
