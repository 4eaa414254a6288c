"""CSV files of a task's instances: columns, rows and their conversion."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class CsvForm:
    """The form of a task's instances in CSV files, a row on each line.

    Attributes:
        columns: Names of the columns in the optional header.
        row: Description of a valid line, for errors, such as ``two integers key,value``.
        read_row: Converts a line's fields to a row; raises a ValueError if they are invalid.
        to_instance: Makes an instance from the rows of each file, from the rows and a query, or from one row,
            according to ``per``.
        per: Source of one instance: all ``files`` together; a ``row``; or the only file and a ``query``, an integer
            that the user gives separately.
        files: One entry per file of an instance: the name of its rows in the task's errors, such as ``pair {}``. A
            single file must have rows; of several, some may be empty.
        contents: Description of the files, for help, such as ``one instance``.
        answers: Description of the output, for help, such as ``the values, a line each``.
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
    """Return a function that reads the fields of a line, each by its own reader.

    >>> reader(number, integer)(["0.5", "7"])
    (0.5, 7)
    """

    def read(fields: Sequence[str]) -> tuple[Any, ...]:
        return tuple(read_field(field) for read_field, field in zip(readers, fields, strict=True))

    return read


def integer(text: str) -> int:
    """Read an integer in decimal digits; raise a ValueError for any other text."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(text)
    return int(text)


def number(text: str) -> float:
    """Read a decimal number, with an optional point and exponent; raise a ValueError for any other text."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise ValueError(text)
    return float(text)
