"""Prove a learned data structure right for every capacity: ``python -m lightning_ham.certify MODEL``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from lightning_ham.certification import (
    Certificate,
    ConsolidationOptions,
    Limits,
    Refusal,
    certify,
    consolidate,
    structure_of,
)
from lightning_ham.command_line import CommandParser, run
from lightning_ham.foreign import shown
from lightning_ham.hub import from_pretrained
from lightning_ham.output_files import write


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "certify",
        "Prove a stack, a queue or a priority queue right in trees of every depth, after every valid sequence of\n"
        "operations. Prints one line, and returns 0 with a proof. Without one it returns 1, and tells what goes\n"
        "wrong; operations that show it are the next line, which `solve MODEL --format jsonl` takes.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint, a saved model or a name")
    parser.add_argument("--output", metavar="FILE", help="file for the certificate, such as MODEL/certificate.json")
    parser.add_argument("--grid", type=float, metavar="G", help="round nodes to multiples of this, such as 1")
    parser.add_argument(
        "--consolidate",
        metavar="FOLDER",
        help="train the model until it is certified, and save it to FOLDER with its certificate",
    )
    parser.add_argument("--minutes", type=float, default=60.0, metavar="M", help="most time (default: 60)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of --consolidate (default: 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    try:
        model = from_pretrained(arguments.model)
        _, controller = structure_of(model)
        memory = controller.memory
        if arguments.grid is not None:
            memory.grid = arguments.grid
        outcome: Certificate | Refusal
        if arguments.consolidate:
            grid = memory.grid or ConsolidationOptions.grid
            options = ConsolidationOptions(grid, rounds=1000, minutes=arguments.minutes, seed=arguments.seed)
            outcome = consolidate(model, options, lambda found: print(found, file=sys.stderr, flush=True))
        else:
            outcome = certify(model, Limits(seconds=60 * arguments.minutes))
        if isinstance(outcome, Certificate):
            model.certificate = outcome
            if arguments.consolidate:
                model.save_pretrained(arguments.consolidate)
            if arguments.output:
                write(arguments.output, outcome.to_bytes().decode())
            print(outcome)
            return 0
    except (ImportError, OSError, TypeError, ValueError) as error:
        parser.error(str(error))
    print(shown(outcome.reason, 1000))
    if outcome.instance is not None:
        print(json.dumps(outcome.instance))
    return 1


if __name__ == "__main__":
    run(main)
