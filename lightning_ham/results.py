"""Rewrite RESULTS.md and the README's table: ``python -m lightning_ham.results``.

For maintainers, in a checkout. See :mod:`lightning_ham.reproduction.report`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, run
from lightning_ham.reproduction.records import CHECKOUT, check_checkout
from lightning_ham.reproduction.report import write


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser("results", "Write RESULTS.md and the README's table from results/ and model_cards/.")
    parser.add_argument("--output", type=Path, default=CHECKOUT, metavar="DIR", help="the checkout (default: this one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    try:
        check_checkout(arguments.output)
        written = write(arguments.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write("".join(f"Wrote {path}\n" for path in written))
    return 0


if __name__ == "__main__":
    run(main)
