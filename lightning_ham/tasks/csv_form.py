"""How the instances of a task stand in CSV files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class CsvForm:
    """How the instances of a task stand in CSV files, a row on each line.

    Attributes:
        columns: The names in the header, which a file may begin with.
        row: What a line is to be, for errors, such as ``two integers key,value``.
        read_row: Makes a row of a line's fields; raises a ValueError where they are none.
        to_instance: Makes an instance: of the rows of each file, of the rows and a query, or of one row, as ``per``
            says.
        per: What makes one instance: all ``files`` together; a ``row``; or the one file and a ``query``, an integer
            that the user gives beside it.
        files: The files that an instance takes, each by what the task's errors call its rows, such as ``pair {}``. A
            single one must have rows; of several, some may be empty.
        contents: What stands in the files, for help, such as ``one instance``.
        answers: What comes out, for help, such as ``the values, a line each``.
    """

    columns: tuple[str, ...]
    row: str
    read_row: Callable[[Sequence[str]], Any]
    to_instance: Callable[..., Any]
    per: Literal["files", "row", "query"] = "files"
    files: tuple[str, ...] = ("row {}",)
    contents: str = "one instance"
    answers: str = "the answers, a line each"


def reader(*readers: Callable[[str], Any]) -> Callable[[Sequence[str]], tuple[Any, ...]]:
    """Return what reads the fields of a line, each by its own reader.

    >>> reader(number, integer)(["0.5", "7"])
    (0.5, 7)
    """

    def read(fields: Sequence[str]) -> tuple[Any, ...]:
        return tuple(read_field(field) for read_field, field in zip(readers, fields, strict=True))

    return read


def integer(text: str) -> int:
    """Read an integer in decimal digits; raise a ValueError if the text is none."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(text)
    return int(text)


def number(text: str) -> float:
    """Read a number in decimal digits, with a point and an exponent if need be; raise a ValueError if it is none."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise ValueError(text)
    return float(text)
