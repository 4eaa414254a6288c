"""Checks of arguments, with errors of one form; NaN never passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from lightning_ham.foreign import quoted

LARGEST_SIZE = 1 << 20
"""Most cells of an instance, leaves of a tree, or episodes of a batch: more would exceed memory."""

LARGEST_COUNT = (1 << 31) - 1
"""Largest count in a training, such as updates: more would take centuries."""


def expect_one_of(argument: str, value: object, choices: Sequence[str]) -> None:
    """Raise a ValueError unless an argument is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"Expected argument `{argument}` to be one of {tuple(choices)}, but got {quoted(value)}.")


def expect_integer(argument: str, value: object, *, at_least: int | None = None, at_most: int = LARGEST_COUNT) -> None:
    """Raise a ValueError unless an argument is an integer in a range; True and 1.0 are refused."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"Expected argument `{argument}` to be an integer, but got {quoted(value)}.")
    if at_least is not None and int(value) < at_least:
        raise ValueError(f"Expected argument `{argument}` to be at least {at_least}, but got {quoted(value)}.")
    if int(value) > at_most:
        raise ValueError(f"Expected argument `{argument}` to be at most {at_most:,}, but got {quoted(value)}.")


def expect_number(
    argument: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise a ValueError unless an argument is a finite number within bounds; True is refused."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"Expected argument `{argument}` to be a number, but got {quoted(value)}.")
    try:
        number = float(value)
    except OverflowError:  # an integer too large for a float
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"Expected argument `{argument}` to be a finite number, but got {quoted(value)}.")
    fits = (
        (at_least is None or number >= at_least)
        and (above is None or number > above)
        and (at_most is None or number <= at_most)
        and (below is None or number < below)
    )
    if not fits:
        bounds = _bounds(at_least, above, at_most, below)
        raise ValueError(f"Expected argument `{argument}` to be {bounds}, but got {quoted(value)}.")


def _bounds(at_least: float | None, above: float | None, at_most: float | None, below: float | None) -> str:
    """Return bounds in words."""
    if at_least is not None and at_most is not None:
        return f"between {at_least:g} and {at_most:g}"
    if above == 0 and at_most is None and below is None:
        return "positive"
    words = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    return " and ".join(f"{word} {bound:g}" for word, bound in words.items() if bound is not None)
