"""Checks of arguments, with errors of one form; NaN never passes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from numbers import Integral, Real

from lightning_ham.foreign import quoted

_noted: dict[str, dict[str, float]] | None = None

LARGEST_SIZE = 1 << 20
"""Most cells of an instance, leaves of a tree, or episodes of a batch: more would exceed memory."""

LARGEST_COUNT = (1 << 31) - 1
"""Largest count in a training, such as updates: more would take centuries."""


@contextlib.contextmanager
def noting_bounds() -> Iterator[dict[str, dict[str, float]]]:
    """Note which bounds the checks in this context ask of arguments; so nobody must write them down again.

    Yields:
        The bounds of each checked argument by its name, in words of JSON Schema, such as ``{"minimum": 1}``.
    """
    global _noted
    before, _noted = _noted, {}
    try:
        yield _noted
    finally:
        _noted = before


def _note(argument: str, **bounds: float | None) -> None:
    if _noted is not None:
        _noted.setdefault(argument, {}).update({word: bound for word, bound in bounds.items() if bound is not None})


def expect_one_of(argument: str, value: object, choices: Sequence[str]) -> None:
    """Raise a ValueError unless an argument is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"Expected argument `{argument}` to be one of {tuple(choices)}, but got {quoted(value)}.")


def expect_integer(argument: str, value: object, *, at_least: int | None = None, at_most: int = LARGEST_COUNT) -> None:
    """Raise a ValueError unless an argument is an integer in a range; True and 1.0 are refused."""
    _note(argument, minimum=at_least, maximum=at_most)
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
    _note(argument, minimum=at_least, exclusiveMinimum=above, maximum=at_most, exclusiveMaximum=below)
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
