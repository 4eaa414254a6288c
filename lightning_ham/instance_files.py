"""Instances of tasks in files: CSV and JSON lines, with every error at its file and line."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lightning_ham.tasks import InstanceError, Task

Format = Literal["csv", "jsonl"]


class InputError(ValueError):
    """Input that cannot be taken; the message begins with the file, and the line where there is one."""


class Source(NamedTuple):
    """A file that was read."""

    name: str
    lines: list[str]

    def at(self, number: int) -> str:
        """Return the place of a line, counted from 1."""
        return f"{self.name}:{number}"


class ReadInstance(NamedTuple):
    """An instance, and where it stood."""

    instance: Any
    place: str
    """Of the whole instance."""
    places: Mapping[str, str]
    """Of its elements, by the names that the task's errors have for them."""


class Row(NamedTuple):
    """A line of CSV."""

    place: str
    values: tuple[Any, ...]


class _Columns(NamedTuple):
    names: tuple[str, ...]
    parsers: tuple[Callable[[str], float], ...]
    described: str


def _integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        raise ValueError(text)
    return float(text)


_PAIRS = _Columns(("key", "value"), (_integer, _integer), "two integers key,value")
_COLUMNS = {
    "add": _Columns(("a", "b"), (_integer, _integer), "two integers a,b"),
    "merge": _Columns(("priority", "value"), (_number, _integer), "a number and an integer priority,value"),
    "reverse": _Columns(("value",), (_integer,), "one integer"),
    "search": _PAIRS,
    "sort": _PAIRS,
}
_OPERATIONS = {
    "stack": ("operation", "value"),
    "queue": ("operation", "value"),
    "priority_queue": ("operation", "priority", "value"),
}


def has_csv_form(task_name: str) -> bool:
    """Return whether instances of a task can be read from CSV; from JSON lines, all can."""
    return task_name in _COLUMNS or task_name in _OPERATIONS


def read_source(name: str) -> Source:
    """Read a file, or standard input for ``-``, as lines of UTF-8."""
    if name == "-":
        name, content = "<stdin>", sys.stdin.buffer.read()
    else:
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"{name}: Expected a file to read, but got: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise InputError(f"{name}:{number}: Expected text in UTF-8, but got other bytes") from error
    lines = text.split("\n")
    if not lines[-1]:  # what follows the last line's end is no line
        lines.pop()
    return Source(name, [line.removesuffix("\r") for line in lines])


def read_csv(task_name: str, sources: Sequence[Source], queries: Sequence[int] = ()) -> list[ReadInstance]:
    """Read the instances of a task that has a CSV form.

    Args:
        task_name: ``merge``, whose instance is two files; ``add``, whose instances are the lines of a file; or
            ``reverse``, ``search``, ``sort`` or a data structure, whose instance is a file.
        sources: As many as the task takes.
        queries: For ``search``, what to search for; each makes an instance.
    """
    if task_name in _OPERATIONS:
        (source,) = sources
        return [_read_operations(_OPERATIONS[task_name], source)]
    columns = _COLUMNS[task_name]
    if task_name == "merge":
        first, second = (_read_rows(columns, source) for source in sources)
        places = _named(first, "pair {} of the first sequence") | _named(second, "pair {} of the second sequence")
        return [ReadInstance((_values(first), _values(second)), sources[0].name, places)]
    (source,) = sources
    rows = _read_rows(columns, source)
    if not rows:
        number = len(source.lines) + 1
        raise InputError(f"{source.at(number)}: Expected {columns.described}, but got the end of the input")
    if task_name == "add":
        return [ReadInstance(row.values, row.place, {}) for row in rows]
    if task_name == "reverse":
        return [ReadInstance([row.values[0] for row in rows], source.name, _named(rows, "number {}"))]
    places = _named(rows, "pair {}")
    if task_name == "sort":
        return [ReadInstance(_values(rows), source.name, places)]
    return [ReadInstance((_values(rows), query), f"--query {query}", places) for query in queries]


def _values(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    return [row.values for row in rows]


def _named(rows: Iterable[Row], name: str) -> dict[str, str]:
    return {name.format(number): row.place for number, row in enumerate(rows, 1)}


def _read_rows(columns: _Columns, source: Source) -> list[Row]:
    """Return the rows of a file, without the header if there is one."""
    rows = []
    for number, line in enumerate(source.lines, 1):
        try:
            fields = [field.strip() for field in next(csv.reader([line], strict=True), [])]
            if number == 1 and tuple(field.lower() for field in fields) == columns.names:
                continue
            values = tuple(parse(field) for parse, field in zip(columns.parsers, fields, strict=True))
        except (csv.Error, ValueError) as error:
            raise InputError(f"{source.at(number)}: Expected {columns.described}, but got {_shown(line)}") from error
        rows.append(Row(source.at(number), values))
    return rows


def _read_operations(names: tuple[str, ...], source: Source) -> ReadInstance:
    """Return the operations of a file, one on each line, without the header if there is one."""
    wanted = f"push,{','.join(names[1:])} or pop"
    operations: list[tuple[Any, ...]] = []
    places = {}
    for number, line in enumerate(source.lines, 1):
        try:
            name, *fields = [field.strip() for field in next(csv.reader([line], strict=True), [""])]
            if number == 1 and (name.lower(), *(field.lower() for field in fields)) == names:
                continue
            if (name, any(fields)) == ("pop", False):
                operation: tuple[Any, ...] = ("pop",)
            elif name == "push" and len(fields) == len(names) - 1:
                operation = ("push", *map(_integer, fields))
            else:
                raise ValueError(line)
        except (csv.Error, ValueError) as error:
            raise InputError(f"{source.at(number)}: Expected {wanted}, but got {_shown(line)}") from error
        operations.append(operation)
        places[f"operation {len(operations)}"] = source.at(number)
    if not operations:
        raise InputError(f"{source.at(len(source.lines) + 1)}: Expected {wanted}, but got the end of the input")
    return ReadInstance(operations, source.name, places)


def read_jsonl(source: Source) -> list[ReadInstance]:
    """Read instances in their Python form, one on each line."""
    if not source.lines:
        raise InputError(f"{source.at(1)}: Expected an instance as JSON, but got the end of the input")
    instances = []
    for number, line in enumerate(source.lines, 1):
        try:
            instance = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{source.at(number)}: Expected an instance as JSON, but got {_shown(line)}") from error
        instances.append(ReadInstance(instance, source.at(number), {}))
    return instances


def _shown(line: str) -> str:
    if not line.strip():
        return "an empty line"
    return repr(line if len(line) <= 60 else f"{line[:57]}...")


def check(task: Task[Any, Any], instances: Iterable[ReadInstance]) -> None:
    """Raise an `InputError` at the file and line of the first element that the task cannot take."""
    for instance, place, places in instances:
        try:
            task.accept(instance)
        except InstanceError as error:
            last = error.place.rpartition(", ")[2]  # of two elements that clash, the one further on
            raise InputError(f"{places.get(last, place)}: {error}") from error


def format_answers(answers: Iterable[Any], form: Format) -> str:
    """Return answers as text: for JSON lines one on each line, for CSV one element of an answer on each."""
    if form == "jsonl":
        return "".join(f"{json.dumps(answer)}\n" for answer in answers)
    elements = (element for answer in answers for element in (answer if isinstance(answer, list) else [answer]))
    return "".join(
        f"{','.join(map(str, element)) if isinstance(element, tuple) else element}\n" for element in elements
    )
