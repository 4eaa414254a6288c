"""Checks of instances from users, with errors that say which element is wrong."""

import math
from collections.abc import Sequence

from lightning_ham.foreign import quoted, shown


class InstanceError(ValueError):
    """A task refuses an instance; the message says which element is wrong, and how.

    Args:
        message: What was expected, and what was found.
        place: The wrong element as named in the message; empty for the whole instance.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


def mismatch(expected: str, got: object, place: str = "") -> InstanceError:
    """Return the error to raise for an unexpected element; elements are counted from 1.

    >>> mismatch("values from 0 to 31", 40, "pair 3")
    InstanceError('Expected values from 0 to 31, but got 40 (pair 3)')
    """
    what = shown(got) if isinstance(got, str) else quoted(got)
    return InstanceError(f"Expected {expected}, but got {what}" + (f" ({place})" if place else ""), place)


def expect_list(candidate: object, elements: str, place: str = "", *, may_be_empty: bool = False) -> Sequence[object]:
    """Return the candidate if it is a list or a tuple."""
    if not isinstance(candidate, list | tuple):
        raise mismatch(f"a list of {elements}", type(candidate).__name__, place)
    if not candidate and not may_be_empty:
        raise mismatch(f"a list of {elements}", "an empty one", place)
    return candidate


def expect_two(candidate: object, wanted: str, place: str = "") -> Sequence[object]:
    """Return the candidate if it is a tuple or list of two (JSON has no tuples)."""
    if not isinstance(candidate, list | tuple):
        raise mismatch(wanted, type(candidate).__name__, place)
    if len(candidate) != 2:
        raise mismatch(wanted, f"{len(candidate)} elements", place)
    return candidate


def expect_integer(candidate: object, elements: str, place: str, *, limit: int | None = None) -> int:
    """Return the candidate if it is an integer of at least 0, and below the limit if there is one."""
    if isinstance(candidate, bool) or not isinstance(candidate, int):
        is_nan = isinstance(candidate, float) and math.isnan(candidate)
        raise mismatch(f"{elements} that are integers", "nan" if is_nan else type(candidate).__name__, place)
    if candidate < 0 or (limit is not None and candidate >= limit):
        allowed = "of at least 0" if limit is None else f"from 0 to {limit - 1}"
        raise mismatch(f"{elements} {allowed}", candidate, place)
    return candidate
