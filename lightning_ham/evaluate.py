"""Measure how often a model is wrong: ``python -m lightning_ham.evaluate MODEL [--lengths 1-32 33-128]``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress

from lightning_ham.command_line import CommandParser, positive, run
from lightning_ham.controllers import set_num_threads
from lightning_ham.evaluation import episodes_per_range, evaluate, table
from lightning_ham.hub import from_pretrained
from lightning_ham.notebook import is_from_notebook, is_notebook
from lightning_ham.tasks import Lengths


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "evaluate",
        "Measure how often a model is wrong on fresh episodes, by the paper's protocol: one wrong bit makes a\n"
        "sequence wrong, and the model's choices are deterministic.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint, a saved model or a name")
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=_lengths,
        default=[Lengths(1, 32), Lengths(33, 128)],
        metavar="LOW-HIGH",
        help="ranges of lengths, each in the smallest memory for its greatest length (default: 1-32 33-128)",
    )
    parser.add_argument(
        "--episodes",
        nargs="+",
        type=positive,
        default=[2500],
        metavar="N",
        help="episodes for each range: one number, or one for each (default: 2500)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the episodes (default: 0)")
    parser.add_argument(
        "--batch_size",
        type=positive,
        default=512,
        metavar="N",
        help="most episodes at a time; affects only speed and memory (default: 512)",
    )
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="CPU threads (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def _lengths(text: str) -> Lengths:
    try:
        return Lengths.of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lightning_ham").setLevel(logging.INFO)
    console = Console(stderr=True)
    is_shown = console.is_terminal and not is_notebook() and not is_from_notebook()
    try:
        counts = arguments.episodes[0] if len(arguments.episodes) == 1 else arguments.episodes
        total = sum(episodes_per_range(arguments.lengths, counts))
        model = from_pretrained(arguments.model)
        set_num_threads(arguments.threads, compiled=model.is_compiled)
        with Progress(console=console, transient=True, disable=not is_shown) as progress:
            bar = progress.add_task("episodes", total=total)
            evaluation = evaluate(
                model,
                arguments.lengths,
                counts,
                arguments.seed,
                arguments.batch_size,
                on_progress=lambda episodes: progress.advance(bar, episodes),
            )
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write((json.dumps(evaluation, indent=2) if arguments.json else table(evaluation)) + "\n")
    return 0


if __name__ == "__main__":
    run(main)
