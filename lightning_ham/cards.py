"""Rewrite the cards of the bundled models: ``python -m lightning_ham.cards [--evaluate]``.

For maintainers, in a checkout. A card is made from ``model_cards/NAME.json`` (the digest of the weights, the evaluation
and the training), the comparison models' results and a template.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, run
from lightning_ham.evaluation import table
from lightning_ham.reproduction.cards import recorded_names, write_card
from lightning_ham.reproduction.records import CHECKOUT, check_checkout


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "cards", "Write the cards of bundled models from model_cards/NAME.json, results/ and a template."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which models (default: all that are bundled)")
    parser.add_argument(
        "--evaluate", action="store_true", help="measure the errors first; takes a minute for each model"
    )
    parser.add_argument("--output", type=Path, default=CHECKOUT, metavar="DIR", help="the checkout (default: this one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the cards; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    checkout = arguments.output
    try:
        check_checkout(checkout)
    except OSError as error:
        parser.error(str(error))
    try:
        for name in arguments.names or recorded_names(checkout):
            record = write_card(checkout, name, arguments.evaluate)
            if arguments.evaluate:
                print(table(record["evaluation"]), flush=True)
            print(f"Wrote {checkout / 'model_cards' / name}.md", flush=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    run(main)
