"""Makes text from files, servers and libraries safe to quote in a one-line message."""

from __future__ import annotations

import contextlib
import difflib
import reprlib
from collections.abc import Iterable
from numbers import Number
from typing import Any

LONGEST = 200
"""Most characters shown of one foreign text."""
LONGEST_MESSAGE = 600
"""Most characters of a whole message, which may quote several texts."""
_MOST_BITS = 14_000
"""Most bits of a number that is written out: below Python's limit of 4,300 digits; larger numbers are slow."""


def shown(foreign: object, most: int = LONGEST) -> str:
    r"""Return text on one line, without control characters, and shortened in the middle if it is long.

    White space becomes single spaces. Other unprintable characters are escaped as in Python: control sequences of a
    terminal, marks that change the direction of writing, undecodable bytes of file names.

    >>> shown("a\nb \x1b[31m"), shown("a" * 9, most=7)
    ('a b \\x1b[31m', 'aa...aa')

    Args:
        foreign: The text, or an exception, path or other object to convert to text.
        most: Most characters of the result.
    """
    text = str(foreign)
    if len(text) > 2 * most:  # first, as the rest takes time for long text
        text = f"{text[:most]}{text[-most:]}"
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in " ".join(text.split()))
    if len(line) <= most:
        return line
    tail = (most - 3) // 2
    return f"{line[: most - 3 - tail]}...{line[len(line) - tail :]}"


def quoted(value: object) -> str:
    """Return a short ``repr`` of a foreign value; large or nested values and objects are abbreviated.

    >>> quoted([1, "two", {3: [4]}]), quoted("x" * 99)[:30]
    ("[1, 'two', {3: [...]}]", "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
    """
    return shown(_SHORT.repr(value))


def closest_to(word: str, known: Iterable[str]) -> str | None:
    """Return the known word closest to a mistyped one; None if none is similar.

    >>> closest_to("srot", ["merge", "sort"]), closest_to("x", ["merge", "sort"])
    ('sort', None)
    """
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


class _Short(reprlib.Repr):
    """Writes plain values; for other objects only the type, as their own text may be anything."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxstring = self.maxother = 80
        self.maxlong = 40

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() <= _MOST_BITS:
            with contextlib.suppress(ValueError):  # Python's limit may be set lower
                return super().repr_int(x, level)
        return f"a number of {x.bit_length():,} bits"

    def repr_instance(self, x: Any, level: int) -> str:
        if isinstance(x, bytes):
            return repr(x[: self.maxother])
        return str(x) if x is None or isinstance(x, Number) else f"<{type(x).__name__}>"


_SHORT = _Short()
