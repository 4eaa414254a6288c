"""Add a trained model to the package: ``python -m lightning_ham.bundle RUN_FOLDER NAME``.

For maintainers, in a checkout. The model goes to ``lightning_ham/hub/weights/NAME``, its evaluation and training to
``model_cards/NAME.json``, and its card, made from these, to both places.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, run
from lightning_ham.reproduction.cards import bundle
from lightning_ham.reproduction.records import CHECKOUT


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "bundle",
        "Add the model of a run folder to the package, and its card and results to model_cards/.",
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help="of a finished training")
    parser.add_argument("name", metavar="NAME", help="name for loading the model, such as ham-sort")
    parser.add_argument("--output", type=Path, default=CHECKOUT, metavar="DIR", help="the checkout (default: this one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    try:
        target = bundle(arguments.run_folder, arguments.name, arguments.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write(f"Bundled in {target}\n")
    return 0


if __name__ == "__main__":
    run(main)
