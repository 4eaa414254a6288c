"""Answer your own data with a model: ``python -m lightning_ham.solve MODEL [FILE ...]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_ham.command_line import CommandParser, on_one_line, run
from lightning_ham.controllers import get_num_threads, set_num_threads
from lightning_ham.foreign import LONGEST_MESSAGE, shown
from lightning_ham.hub import from_pretrained
from lightning_ham.instance_files import (
    Format,
    InputError,
    ReadInstance,
    check,
    format_answers,
    read_csv,
    read_jsonl,
    read_source,
)
from lightning_ham.models import AnswerWarning
from lightning_ham.output_files import are_one, check_place, is_read, write
from lightning_ham.tasks import Task, built_in_tasks

_FORMS = """\
CSV, with or without the header; the answers come without one:
{csv}

JSON lines (.jsonl): an instance a line -> its answer, a line each:
{json}

All input is checked before anything is answered or written. Status 2: FILE:LINE and what is wrong on one line
of standard error, and no output. An answer is the model's own. A warning on standard error tells of input that is
longer than what the model was evaluated on, or found right on, and of input unlike all samples.
"""


def _forms() -> str:
    """Return how instances of the package's own tasks are written, for help."""
    tasks = built_in_tasks()
    forms = [(task.name, form) for task in tasks if (form := task.csv_form())]
    rows = [(name, form.row, form.contents, f"-> {form.answers}") for name, form in forms]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return _FORMS.format(
        csv="\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows),
        json="\n".join(f"  {task.name:<{widths[0]}}  {task.example}" for task in tasks if task.example),
    )


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser("solve", "Answer instances of a model's task with the model.", _forms())
    parser.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint, a saved model or a name")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", default=[], help="what to answer; standard input if none is given, or for -"
    )
    parser.add_argument(
        "--format",
        choices=("csv", "jsonl"),
        help="of input and output (default: jsonl for files named .jsonl, and from standard input where CSV takes two "
        "files; else csv)",
    )
    parser.add_argument(
        "--query",
        type=int,
        action="append",
        metavar="KEY",
        help="what to search for in CSV, for a task that takes it; may be given repeatedly",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="where the answers go instead of standard output; it may be an input"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="where to write how each answer came about, a JSON object a line: for every access to the memory "
        "the leaf attended, the probability of each branch and the output",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Answer as the command line says; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    output, trace = "-" if arguments.output is None else arguments.output, arguments.trace
    try:
        _check_places(output, trace, arguments.files or ["-"])
        model = from_pretrained(arguments.model)
        set_num_threads(get_num_threads(), compiled=model.is_compiled)
        sys.set_int_max_str_digits(0)  # numbers to add may be of any size; what a model's files say may not
        form: Format = arguments.format or _format(model.task, arguments.files)
        instances = _read(model.task, arguments.files, form, arguments.query)
        check(model.task, instances)
        with on_one_line(AnswerWarning):
            answers = format_answers(model.solve([read.instance for read in instances]), form)
            traces = [model.trace(read.instance) for read in instances] if trace is not None else []
        if trace is not None:
            write(trace, "".join(f"{json.dumps(traced)}\n" for traced in traces))
        write(output, answers)
    except BrokenPipeError:
        raise
    except InputError as error:
        parser.exit(2, f"{shown(error, LONGEST_MESSAGE)}\n")
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    return 0


def _check_places(output: str, trace: str | None, files: Sequence[str]) -> None:
    """Raise a ValueError unless answers and trace can both be kept, and the trace takes no place of what is read.

    The answers may: they are what was read, solved.
    """
    check_place(output)
    if trace is None:
        return
    check_place(trace)
    if are_one(output, trace):
        got = "standard output" if output == "-" else output
        raise ValueError(f"Expected different places for the answers and the trace, but got {got} and {trace}")
    if is_read(trace, files):
        raise ValueError(f"Expected a place for the trace that is no input, but got {trace}")


def _format(task: Task[Any, Any], files: Sequence[str]) -> Format:
    if any(Path(name).suffix in {".jsonl", ".ndjson"} for name in files):
        return "jsonl"
    csv = task.csv_form()
    return "jsonl" if csv and len(csv.files) > 1 and list(files) in ([], ["-"]) else "csv"


def _read(
    task: Task[Any, Any], files: Sequence[str], form: Format, queries: Sequence[int] | None
) -> list[ReadInstance]:
    """Read the instances in ``files``; complain of a number of files or of options that do not suit."""
    csv = task.csv_form() if form == "csv" else None
    by_query = csv is not None and csv.per == "query"
    if by_query and not queries:
        raise ValueError("Expected --query KEY, what to search for in the CSV file, but got none")
    if queries and not by_query:
        forms = ((other.name, other.csv_form()) for other in built_in_tasks())
        takers = " and ".join(name for name, other in forms if other and other.per == "query")
        raise ValueError(f"Expected --query for {takers} in CSV only, but got it for {task.name} in {form}")
    if form == "csv" and csv is None:
        raise ValueError(f"Expected JSON lines for {task.name}, which has no form in CSV; add --format jsonl")
    names = list(files) or ["-"]
    expected = len(csv.files) if csv else 1
    if len(names) != expected:
        wanted = f"one {form} file" if expected == 1 else f"{'two' if expected == 2 else expected} CSV files"
        raise ValueError(f"Expected {wanted} for {task.name}, but got {len(names)}: {' '.join(names)}")
    if names.count("-") > 1:
        raise ValueError("Expected standard input (-) for one of the files at most, but got it twice")
    sources = [read_source(name) for name in names]
    return read_csv(csv, sources, queries or ()) if csv else read_jsonl(*sources)


if __name__ == "__main__":
    run(main)
