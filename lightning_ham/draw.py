"""Draw what a model attends to: ``python -m lightning_ham.draw MODEL [--instance JSON] [-o FILE.svg]``.

One small tree a timestep, with the path to the attended leaf, the probability of going right at every node of it, and
the symbol that was put out. By the name of the file, the picture is SVG, PNG or PDF.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import torch

from lightning_ham.command_line import CommandParser, on_one_line, positive, run
from lightning_ham.controllers import set_num_threads
from lightning_ham.hub import from_pretrained
from lightning_ham.models import AnswerWarning
from lightning_ham.output_files import check_place, write
from lightning_ham.pictures.attention import draw_attention
from lightning_ham.pictures.formats import FORMATS, format_of, listed, rendered
from lightning_ham.tasks import Task


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "draw",
        "Draw what a model attends to in one instance: a tree a timestep, with the path to the leaf that is read, the\n"
        "probability of going right at every node of it, and the symbol put out.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint, a saved model or a name")
    parser.add_argument("--instance", metavar="JSON", help="the instance, in the form that solve takes in JSON lines")
    parser.add_argument(
        "--length",
        type=positive,
        metavar="N",
        help="cells of an instance that is drawn at random instead (default: 8)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed of that instance (default: 0)")
    parser.add_argument(
        "--steps",
        type=_steps,
        metavar="N,N,...",
        help="which accesses to the memory to draw, from 0 (default: all, or of a long instance some, spread evenly)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"the picture, by the end of its name {listed(FORMATS)} (default: SVG to standard output)",
    )
    return parser


def _steps(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"Expected numbers such as 0,1,2, but got {text!r}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Draw as the command line says; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    output = "-" if arguments.output is None else arguments.output
    try:
        form = format_of(output)
        check_place(output)
        model = from_pretrained(arguments.model)
        set_num_threads(1, compiled=model.is_compiled)
        with on_one_line(AnswerWarning):
            picture = draw_attention(model, _instance(model.task, arguments), arguments.steps)
        write(output, rendered(picture, form))
    except BrokenPipeError:
        raise
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    return 0


def _instance(task: Task[Any, Any], arguments: argparse.Namespace) -> Any:
    """Return the instance that the command line gives, or asks to be drawn at random."""
    if arguments.instance is None:
        length = 8 if arguments.length is None else arguments.length
        generator = torch.Generator().manual_seed(arguments.seed or 0)
        episodes = task.sample(1, (length, length), generator=generator)
        return task.decode_inputs(episodes.inputs[0], episodes.occupied[0])
    if arguments.length is not None or arguments.seed is not None:
        raise ValueError("Expected either --instance, or --length and --seed, but got both.")
    try:
        return json.loads(arguments.instance)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected --instance to be JSON, but got {arguments.instance!r}.") from error


if __name__ == "__main__":
    run(main)
