"""How far to trust a mean: intervals over seeds, and over pairs of runs. Pure functions; numpy is all they need."""

from collections.abc import Sequence

import numpy as np

# Student's t at 97.5 %, for 1 to 30 degrees of freedom
_T = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
    *(2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272),
)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of normal values; one value has none, so it gets (-inf, inf).

    >>> low, high = t_interval([1, 2, 3])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return -np.inf, np.inf
    df = len(values) - 1
    # beyond the table by the expansion of Cornish and Fisher, good to four digits there
    z = 1.959964
    t = _T[df - 1] if df <= len(_T) else z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    half = t * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def paired_bootstrap(differences: Sequence[float], draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of differences between pairs, by drawing pairs anew.

    Of few pairs it is too narrow: of normal differences it holds the mean in 75 % of cases with 3 pairs, where it is
    the range of what was seen, in 84 % with 5, in 90 % with 10 and in 92 % with 15.

    >>> paired_bootstrap([0.1, 0.1, 0.1])
    (0.1, 0.1)
    """
    differences = np.asarray(differences, float)
    if len(differences) < 2:
        return -np.inf, np.inf
    drawn = np.random.default_rng(seed).integers(len(differences), size=(draws, len(differences)))
    low, high = np.quantile(differences[drawn].mean(1), (0.025, 0.975))
    return float(round(low, 12)), float(round(high, 12))
