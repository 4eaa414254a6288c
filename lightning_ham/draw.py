"""Draw what a model attends to: ``python -m lightning_ham.draw MODEL [--instance JSON] [-o FILE.svg]``.

One small tree per timestep, with the path to the attended leaf, the probability of going right at every node of the
path, and the output symbol. The file's name selects SVG, PNG or PDF.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from lightning_ham.command_line import CommandParser, on_one_line, positive, run
from lightning_ham.controllers import set_num_threads
from lightning_ham.hub import from_pretrained
from lightning_ham.instance_files import given_or_sampled
from lightning_ham.models import AnswerWarning
from lightning_ham.output_files import check_place, write
from lightning_ham.pictures.attention import draw_attention
from lightning_ham.pictures.formats import FORMATS, format_of, listed, rendered


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "draw",
        "Draw what a model attends to in one instance: a tree per timestep, with the path to the attended leaf, the\n"
        "probability of going right at every node of the path, and the output symbol.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint, a saved model or a name")
    parser.add_argument("--instance", metavar="JSON", help="the instance, in the form that solve takes in JSON lines")
    parser.add_argument(
        "--length",
        type=positive,
        metavar="N",
        help="cells of a random instance instead (default: 8)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the random instance (default: 0)")
    parser.add_argument(
        "--steps",
        type=_steps,
        metavar="N,N,...",
        help="accesses to the memory to draw, from 0 (default: all; for long instances an even selection)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"the picture, a name that ends in {listed(FORMATS)} (default: SVG to standard output)",
    )
    return parser


def _steps(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"Expected numbers such as 0,1,2, but got {text!r}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    output = "-" if arguments.output is None else arguments.output
    try:
        form = format_of(output)
        check_place(output)
        model = from_pretrained(arguments.model)
        set_num_threads(1, compiled=model.is_compiled)
        with on_one_line(AnswerWarning):
            instance = given_or_sampled(model.task, arguments.instance, arguments.length, arguments.seed)
            picture = draw_attention(model, instance, arguments.steps)
        write(output, rendered(picture, form))
    except BrokenPipeError:
        raise
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    run(main)
