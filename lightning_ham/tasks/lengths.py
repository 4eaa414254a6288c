"""Ranges of lengths, and their written form."""

from __future__ import annotations

import contextlib
import operator
import re
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple


def row_name(lengths: Sequence[int], variant: str | None = None) -> str:
    """Name a row of results by its range of lengths and the task's variant, if any.

    >>> row_name([1, 32]), row_name([1, 32], "grid")
    ('1-32', '1-32 (grid)')
    """
    return str(Lengths.of(lengths)) + (f" ({variant})" if variant else "")


class Lengths(NamedTuple):
    """A range of lengths, both ends included. It is written ``1-32``.

    >>> str(Lengths(1, 32))
    '1-32'
    """

    low: int
    high: int

    @classmethod
    def of(cls, value: object) -> Lengths:
        """Return the range given as ``"1-32"``, ``"1:32"`` or a pair of integers.

        >>> Lengths.of("1:32") == Lengths.of("1-32") == Lengths.of([1, 32]) == (1, 32)
        True

        Raises:
            ValueError: If it is none of these. This does not check that a task has such lengths.
        """
        if isinstance(value, str) and (match := _WRITTEN.fullmatch(value.strip())):
            return cls(int(match[1]), int(match[2]))
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
            with contextlib.suppress(TypeError):
                return cls(*map(_integer, value))
        raise ValueError(f"Expected lengths LOW-HIGH, such as 1-32, but got {reprlib.repr(value)}")

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"


_WRITTEN = re.compile(r"([0-9]{1,18})[-:]([0-9]{1,18})")


def _integer(number: Any) -> int:
    if isinstance(number, bool):
        raise TypeError("a truth value is no length")
    return operator.index(number)
