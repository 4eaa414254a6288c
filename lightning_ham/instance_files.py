"""Instances of tasks in files, as CSV or JSON lines; errors name the file and line."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from lightning_ham.tasks import CsvForm, InstanceError, Task, built_in_tasks

Format = Literal["csv", "jsonl"]

_FORMS = """\
CSV, with or without the header; the answers come without one:
{csv}

JSON lines (.jsonl): an instance a line -> its answer, a line each:
{json}

All input is checked before anything is answered or written. Exit status 2: one line on standard error says
FILE:LINE and what is wrong; there is no output. The model itself answers, right or wrong. A warning on standard
error tells if input is longer than any the model was evaluated on or found right on, or unlike all samples.
"""


class InputError(ValueError):
    """Invalid input; the message begins with the file, and the line if there is one."""


class Source(NamedTuple):
    """The lines of a file."""

    name: str
    lines: list[str]

    def at(self, number: int) -> str:
        """Return the place of a line, counted from 1."""
        return f"{self.name}:{number}"


class ReadInstance(NamedTuple):
    """An instance and its place in a file."""

    instance: Any
    place: str
    """Place of the whole instance."""
    places: Mapping[str, str]
    """Places of its elements, by their names in the task's errors."""


class Row(NamedTuple):
    """A line of CSV."""

    place: str
    value: Any


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
    if not lines[-1]:  # nothing follows the end of the last line
        lines.pop()
    return Source(name, [line.removesuffix("\r") for line in lines])


def read_csv(form: CsvForm, sources: Sequence[Source], queries: Sequence[int] = ()) -> list[ReadInstance]:
    """Read instances in CSV.

    Args:
        form: The task's form in CSV.
        sources: The files, as many as the form requires.
        queries: The user's queries, one per instance, if the form uses queries.
    """
    files = [_read_rows(form, source) for source in sources]
    if files == [[]]:
        (source,) = sources
        raise InputError(f"{source.at(len(source.lines) + 1)}: Expected {form.row}, but got the end of the input")
    if form.per == "row":
        return [ReadInstance(form.to_instance(row.value), row.place, {}) for rows in files for row in rows]
    places = {
        name.format(number): row.place
        for name, rows in zip(form.files, files, strict=True)
        for number, row in enumerate(rows, 1)
    }
    values = [[row.value for row in rows] for rows in files]
    if form.per == "query":
        return [ReadInstance(form.to_instance(*values, query), f"--query {query}", places) for query in queries]
    return [ReadInstance(form.to_instance(*values), sources[0].name, places)]


def _read_rows(form: CsvForm, source: Source) -> list[Row]:
    """Return the rows of a file, without the optional header."""
    rows = []
    for number, line in enumerate(source.lines, 1):
        try:
            fields = [field.strip() for field in next(csv.reader([line], strict=True), [])]
            if number == 1 and tuple(field.lower() for field in fields) == form.columns:
                continue
            rows.append(Row(source.at(number), form.read_row(fields)))
        except (csv.Error, ValueError) as error:
            raise InputError(f"{source.at(number)}: Expected {form.row}, but got {_shown(line)}") from error
    return rows


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
    """Raise an `InputError` with the file and line of the first element that the task refuses."""
    for instance, place, places in instances:
        try:
            task.accept(instance)
        except InstanceError as error:
            last = error.place.rpartition(", ")[2]  # of two conflicting elements, the later one
            raise InputError(f"{places.get(last, place)}: {error}") from error


def format_answers(answers: Iterable[Any], form: Format) -> str:
    """Return answers as text: one answer per line for JSON lines, one element of an answer per line for CSV."""
    if form == "jsonl":
        return "".join(f"{json.dumps(answer)}\n" for answer in answers)
    elements = (element for answer in answers for element in (answer if isinstance(answer, list) else [answer]))
    return "".join(
        f"{','.join(map(str, element)) if isinstance(element, tuple) else element}\n" for element in elements
    )


def format_of_files(task: Task[Any, Any], files: Sequence[str]) -> Format:
    """Return the form of instances in ``files``, by their names; CSV by default, if the task can read it from them."""
    if any(Path(name).suffix in {".jsonl", ".ndjson"} for name in files):
        return "jsonl"
    form = task.csv_form()
    return "jsonl" if form and len(form.files) > 1 and list(files) in ([], ["-"]) else "csv"


def read_instances(
    task: Task[Any, Any], files: Sequence[str], form: Format, queries: Sequence[int] | None
) -> list[ReadInstance]:
    """Read the instances in ``files``; raise a ValueError if the number of files or the options do not suit."""
    in_csv = task.csv_form() if form == "csv" else None
    by_query = in_csv is not None and in_csv.per == "query"
    if by_query and not queries:
        raise ValueError("Expected --query KEY, what to search for in the CSV file, but got none")
    if queries and not by_query:
        forms = ((other.name, other.csv_form()) for other in built_in_tasks())
        takers = " and ".join(name for name, other in forms if other and other.per == "query")
        raise ValueError(f"Expected --query for {takers} in CSV only, but got it for {task.name} in {form}")
    if form == "csv" and in_csv is None:
        raise ValueError(f"Expected JSON lines for {task.name}, which has no form in CSV; add --format jsonl")
    names = list(files) or ["-"]
    expected = len(in_csv.files) if in_csv else 1
    if len(names) != expected:
        wanted = f"one {form} file" if expected == 1 else f"{'two' if expected == 2 else expected} CSV files"
        raise ValueError(f"Expected {wanted} for {task.name}, but got {len(names)}: {' '.join(names)}")
    if names.count("-") > 1:
        raise ValueError("Expected standard input (-) for one of the files at most, but got it twice")
    sources = [read_source(name) for name in names]
    return read_csv(in_csv, sources, queries or ()) if in_csv else read_jsonl(*sources)


def given_or_sampled(task: Task[Any, Any], given: str | None, length: int | None, seed: int | None) -> Any:
    """Return an instance given as JSON, or a random one.

    Args:
        task: The task.
        given: The instance as JSON, without length and seed; None for a random one.
        length: Cells of a random instance; 8 by default.
        seed: Seed of a random instance; 0 by default.

    Raises:
        ValueError: If both are requested, or ``given`` is not JSON.
    """
    if given is None:
        length = 8 if length is None else length
        generator = torch.Generator().manual_seed(seed or 0)
        episodes = task.sample(1, (length, length), generator=generator)
        return task.decode_inputs(episodes.inputs[0], episodes.occupied[0])
    if length is not None or seed is not None:
        raise ValueError("Expected either --instance, or --length and --seed, but got both.")
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected --instance to be JSON, but got {given!r}.") from error


def described_forms() -> str:
    """Return a description of the forms of the package's own tasks, for help."""
    tasks = built_in_tasks()
    forms = [(task.name, form) for task in tasks if (form := task.csv_form())]
    rows = [(name, form.row, form.contents, f"-> {form.answers}") for name, form in forms]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return _FORMS.format(
        csv="\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows),
        json="\n".join(f"  {task.name:<{widths[0]}}  {task.example}" for task in tasks if task.example),
    )
