"""Answer your own data with a model: ``python -m lightning_ham.solve MODEL [FILE ...]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from lightning_ham.command_line import CommandParser, on_one_line, run
from lightning_ham.controllers import get_num_threads, set_num_threads
from lightning_ham.foreign import LONGEST_MESSAGE, shown
from lightning_ham.hub import from_pretrained
from lightning_ham.instance_files import (
    Format,
    InputError,
    check,
    described_forms,
    format_answers,
    format_of_files,
    read_instances,
)
from lightning_ham.models import AnswerWarning
from lightning_ham.output_files import check_places, write


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser("solve", "Answer instances of a model's task with the model.", described_forms())
    parser.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint, a saved model or a name")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", default=[], help="instances to answer; standard input by default, or for -"
    )
    parser.add_argument(
        "--format",
        choices=("csv", "jsonl"),
        help="format of input and output (default: jsonl for files named .jsonl, and for standard input if CSV takes "
        "two files; else csv)",
    )
    parser.add_argument(
        "--query",
        type=int,
        action="append",
        metavar="KEY",
        help="key to search for in CSV, for a task that takes one; may be repeated",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="file for the answers instead of standard output; may be an input"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="file for a trace of each answer, one JSON object per line: for every access to the memory the attended "
        "leaf, the probability of each branch and the output",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    output, trace = "-" if arguments.output is None else arguments.output, arguments.trace
    try:
        check_places(output, trace, arguments.files or ["-"])
        model = from_pretrained(arguments.model)
        set_num_threads(get_num_threads(), compiled=model.is_compiled)
        sys.set_int_max_str_digits(0)  # numbers to add may have any size; numbers in a model's files may not
        form: Format = arguments.format or format_of_files(model.task, arguments.files)
        instances = read_instances(model.task, arguments.files, form, arguments.query)
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


if __name__ == "__main__":
    run(main)
