"""Publish the model of a run on the Hub: ``python -m lightning_ham.push RUN_FOLDER ORGANISATION/NAME``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from lightning_ham.command_line import CommandParser, run
from lightning_ham.runs.publish import push_run


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "push",
        "Publish the model of a run on the Hub: its configuration, weights, card and the card's pictures, if any, in\n"
        "one commit, which is tagged v1, v2, ... It is evaluated first, unless the run folder has an evaluation of\n"
        "exactly these weights. If nothing has changed since the last push, there is no commit.",
        "The token is that of `hf auth login`, or of the variable HF_TOKEN.",
    )
    parser.add_argument("run_folder", metavar="RUN_FOLDER", help="a run folder, a saved model or a checkpoint")
    parser.add_argument("repo_id", metavar="ORGANISATION/NAME", help="its name on the Hub; created if missing")
    parser.add_argument("--private", action="store_true", help="make a new model visible to its owners only")
    parser.add_argument("--message", metavar="TEXT", help="message of the commit")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch, created if missing (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="propose the change in a pull request")
    parser.add_argument("--endpoint", metavar="URL", help="the Hub's address (default: HF_ENDPOINT's)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("lightning_ham").setLevel(logging.INFO)
    torch.set_num_threads(1)
    try:
        address = push_run(
            Path(arguments.run_folder),
            arguments.repo_id,
            private=arguments.private or None,
            commit_message=arguments.message,
            revision=arguments.revision,
            create_pr=arguments.create_pr,
            endpoint=arguments.endpoint,
        )
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write(f"{address}\n")
    return 0


if __name__ == "__main__":
    run(main)
