"""Checks of arguments: complaints of one form, and no NaN that passes because a comparison with it is false."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from numbers import Integral, Real

LARGEST_SIZE = 1 << 20
"""Most cells of an instance, leaves of a tree, or episodes of a batch: with more, memory ends first."""

LARGEST_COUNT = (1 << 31) - 1
"""Most of what a training counts, such as its updates: more would take centuries."""


def shown(value: object) -> str:
    """Return what a message shows of a wrong value: all of it where it is short.

    >>> shown("soft"), shown(0.5), shown(10**1000)
    ("'soft'", '0.5', 'an integer of 3322 bits')
    """
    if isinstance(value, int) and value.bit_length() > 256:  # longer ones Python may refuse to write
        return f"an integer of {value.bit_length()} bits"
    short = reprlib.Repr()
    short.maxstring = short.maxother = 100
    return short.repr(value)


def expect_one_of(argument: str, value: object, choices: Sequence[str]) -> None:
    """Raise a ValueError unless an argument is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"Expected argument `{argument}` to be one of {tuple(choices)}, but got {shown(value)}.")


def expect_integer(argument: str, value: object, *, at_least: int | None = None, at_most: int = LARGEST_COUNT) -> None:
    """Raise a ValueError unless an argument is an integer in a range; true and 1.0 are none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"Expected argument `{argument}` to be an integer, but got {shown(value)}.")
    if at_least is not None and int(value) < at_least:
        raise ValueError(f"Expected argument `{argument}` to be at least {at_least}, but got {shown(value)}.")
    if int(value) > at_most:
        raise ValueError(f"Expected argument `{argument}` to be at most {at_most:,}, but got {shown(value)}.")


def expect_number(
    argument: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise a ValueError unless an argument is a finite number within bounds; true is no number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"Expected argument `{argument}` to be a number, but got {shown(value)}.")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond what a float can be
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"Expected argument `{argument}` to be a finite number, but got {shown(value)}.")
    fits = (
        (at_least is None or number >= at_least)
        and (above is None or number > above)
        and (at_most is None or number <= at_most)
        and (below is None or number < below)
    )
    if not fits:
        bounds = _bounds(at_least, above, at_most, below)
        raise ValueError(f"Expected argument `{argument}` to be {bounds}, but got {shown(value)}.")


def _bounds(at_least: float | None, above: float | None, at_most: float | None, below: float | None) -> str:
    """Return bounds in words."""
    if at_least is not None and at_most is not None:
        return f"between {at_least:g} and {at_most:g}"
    if above == 0 and at_most is None and below is None:
        return "positive"
    words = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    return " and ".join(f"{word} {bound:g}" for word, bound in words.items() if bound is not None)
