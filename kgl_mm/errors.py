"""Errors that are the user's to mend: one sentence that says what is wrong, where, and what to do."""

from collections.abc import Sequence
from numbers import Integral, Real


class UsageError(ValueError):
    """Bad input. The command-line tools print its text without a traceback and exit with status 2."""


def first_line(error: BaseException) -> str:
    """What an error says, as far as one line goes."""
    lines = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def check_choice(choices: Sequence, **options) -> None:
    """Refuse options that are none of these.

    >>> check_choice(('avg', 'max'), pooling='avg', seg_pooling='typo')
    Traceback (most recent call last):
    kgl_mm.errors.UsageError: seg_pooling='typo': not one of avg, max
    """
    for name, value in options.items():
        if value not in choices:
            raise UsageError(f'{name}={value!r}: not one of {", ".join(map(str, choices))}')


def check_number(
    low: float | None = None,
    high: float | None = None,
    *,
    whole: bool = False,
    above: bool = False,
    none: str | None = None,
    **options,
) -> None:
    """Refuse options that are no numbers from ``low`` to ``high``.

    Args:
        low: the least; None for no limit.
        high: the most; None for no limit.
        whole: whether it must be a whole number.
        above: whether it must be more than ``low``.
        none: what None stands for, where it may be that.
        **options: by their names.

    >>> check_number(0, whole=True, none='all', num_priors='five')
    Traceback (most recent call last):
    kgl_mm.errors.UsageError: num_priors='five': not a whole number of 0 or more, nor None for all
    """
    if above:
        limits = f' above {low}' + (f', up to {high}' if high is not None else '')
    elif high is not None:
        limits = f' from {low} to {high}'
    else:
        limits = f' of {low} or more' if low is not None else ''
    for name, value in options.items():
        if value is None and none:
            continue
        is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
        if is_number and (low is None or (value > low if above else value >= low)) and (high is None or value <= high):
            continue
        rest = f', nor None for {none}' if none else ''
        raise UsageError(f'{name}={value!r}: not a {"whole " if whole else ""}number{limits}{rest}')
