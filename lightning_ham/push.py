"""Publish the model of a run on the Hub: ``python -m lightning_ham.push RUN_FOLDER ORGANISATION/NAME``.

With ``--dataset``, the episodes of a task's evaluation, with the oracle's answers, as a dataset.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lightning_ham.command_line import CommandParser, positive, run
from lightning_ham.hub.dataset import dataset_files
from lightning_ham.hub.push import check_name, check_token, push_files
from lightning_ham.reproduction.records import EPISODES, RANGES
from lightning_ham.runs.publish import push_run


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "push",
        "Publish the model of a run on the Hub: its configuration, weights, card and the card's pictures, if any, in\n"
        "one commit, which is tagged v1, v2, ... It is evaluated first, unless the run folder has an evaluation of\n"
        "exactly these weights. If nothing has changed since the last push, there is no commit.\n\n"
        "With --dataset, publish the episodes on which models of a task are evaluated, with the right answers, as a\n"
        "dataset that the library `datasets` loads.",
        "The token is that of `hf auth login`, or of the variable HF_TOKEN.",
    )
    parser.add_argument(
        "run_folder", metavar="RUN_FOLDER", help="a run folder, a saved model or a checkpoint; with --dataset, a task"
    )
    parser.add_argument("repo_id", metavar="ORGANISATION/NAME", help="its name on the Hub; created if missing")
    parser.add_argument("--private", action="store_true", help="make a new model visible to its owners only")
    parser.add_argument("--message", metavar="TEXT", help="message of the commit")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch, created if missing (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="propose the change in a pull request")
    parser.add_argument("--endpoint", metavar="URL", help="the Hub's address (default: HF_ENDPOINT's)")
    parser.add_argument("--dataset", action="store_true", help="publish the episodes of a task")
    dataset = parser.add_argument_group("with --dataset")
    dataset.add_argument(
        "--lengths",
        nargs="+",
        metavar="LOW-HIGH",
        help=f"ranges of lengths (default: {' '.join(map(str, RANGES))})",
    )
    dataset.add_argument(
        "--episodes",
        nargs="+",
        type=positive,
        metavar="N",
        help="episodes for each range: one number, or one for each "
        f"(default: {' '.join(map(str, EPISODES))}; 2500 if lengths are given)",
    )
    dataset.add_argument("--seed", type=int, metavar="N", help="seed of the episodes (default: 0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lightning_ham").setLevel(logging.INFO)
    torch.set_num_threads(1)
    options = {
        "private": arguments.private or None,
        "commit_message": arguments.message,
        "revision": arguments.revision,
        "create_pr": arguments.create_pr,
        "endpoint": arguments.endpoint,
    }
    try:
        if arguments.dataset:
            address = _push_dataset(arguments, options)
        else:
            for name in ("lengths", "episodes", "seed"):
                if getattr(arguments, name) is not None:
                    raise ValueError(f"Expected --{name} with --dataset only.")
            address = push_run(Path(arguments.run_folder), arguments.repo_id, **options)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write(f"{address}\n")
    return 0


def _push_dataset(arguments: argparse.Namespace, options: dict[str, Any]) -> str:
    """Push the episodes of a task; return the dataset's address."""
    check_name(arguments.repo_id)
    check_token(arguments.repo_id)
    if arguments.lengths is None:
        lengths: list[Any] = list(RANGES)
        counts = list(EPISODES) if arguments.episodes is None else arguments.episodes
    else:
        lengths, counts = arguments.lengths, arguments.episodes or [2500]
    episodes = counts[0] if len(counts) == 1 else counts
    files = dataset_files(arguments.run_folder, arguments.repo_id, lengths, episodes, arguments.seed or 0)
    return push_files(files, arguments.repo_id, kind="dataset", **options)


if __name__ == "__main__":
    run(main)
