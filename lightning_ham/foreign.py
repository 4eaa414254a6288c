"""Text from files, servers and libraries, made safe to show: a message that quotes it stays one line of a terminal."""

from __future__ import annotations

import contextlib
import difflib
import reprlib
from collections.abc import Iterable
from numbers import Number
from typing import Any

LONGEST = 200
"""Most characters that are shown of one foreign text."""
LONGEST_MESSAGE = 600
"""Most characters of a whole message, which may quote several."""
_MOST_BITS = 14_000
"""Of a number that is written out: Python's own limit is 4,300 digits, and where it is lifted, more would take long."""


def shown(foreign: object, most: int = LONGEST) -> str:
    r"""Return text on one line, without control characters, and cut in its middle where it is long.

    White space becomes single spaces. What else would not be printed is escaped as Python escapes it: sequences that
    steer a terminal, marks that turn the direction of writing, bytes of file names that are no text.

    >>> shown("a\nb \x1b[31m"), shown("a" * 9, most=7)
    ('a b \\x1b[31m', 'aa...aa')

    Args:
        foreign: The text, or an exception, path or other object whose text is meant.
        most: Most characters of the result.
    """
    text = str(foreign)
    if len(text) > 2 * most:  # before it is gone through, which takes time
        text = f"{text[:most]}{text[-most:]}"
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in " ".join(text.split()))
    if len(line) <= most:
        return line
    tail = (most - 3) // 2
    return f"{line[: most - 3 - tail]}...{line[len(line) - tail :]}"


def quoted(value: object) -> str:
    """Return a foreign value as Python writes it, short: of what is large or nested, and of objects, only a little.

    >>> quoted([1, "two", {3: [4]}]), quoted("x" * 99)[:30]
    ("[1, 'two', {3: [...]}]", "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
    """
    return shown(_SHORT.repr(value))


def closest_to(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like a mistyped one, None if none is.

    >>> closest_to("srot", ["merge", "sort"]), closest_to("x", ["merge", "sort"])
    ('sort', None)
    """
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


class _Short(reprlib.Repr):
    """Writes plain values; of other objects it names the type, as their own text may be anything."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxstring = self.maxother = 80
        self.maxlong = 40

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() <= _MOST_BITS:
            with contextlib.suppress(ValueError):  # of a Python that is told to write shorter ones only
                return super().repr_int(x, level)
        return f"a number of {x.bit_length():,} bits"

    def repr_instance(self, x: Any, level: int) -> str:
        if isinstance(x, bytes):
            return repr(x[: self.maxother])
        return str(x) if x is None or isinstance(x, Number) else f"<{type(x).__name__}>"


_SHORT = _Short()
