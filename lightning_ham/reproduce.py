"""Train every recipe and its comparison models with several seeds: ``python -m lightning_ham.reproduce``.

Each training is a separate ``fit`` in ``runs/reproduce/TASK-MODEL-DIGEST/SEED``; some run in parallel. The digest is
that of the recipe: finished runs are not repeated until their recipe changes. Interrupted runs resume from their last
checkpoint. After every training, ``results/TASK-MODEL.json`` and ``RESULTS.md`` are rewritten.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, positive, recipe_overrides, run, some_of, time_limit
from lightning_ham.reproduction.jobs import make_jobs, reproducible_tasks
from lightning_ham.reproduction.records import EPISODES, TITLES
from lightning_ham.reproduction.session import listed, reproduce
from lightning_ham.reproduction.trainings import SLOW_LONG_EPISODES, Settings


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "reproduce",
        "Train every recipe and its comparison models with several seeds, evaluate them on fresh episodes, and write\n"
        "results/*.json and RESULTS.md. Start it again to go on: finished trainings are not repeated, and those that\n"
        "a smaller --budget cut off are resumed.",
        epilog="Keys of recipes, in the form --trainer.max_epochs=10, override them in every training.",
    )
    tasks = reproducible_tasks()
    parser.add_argument("--only", type=some_of(tasks), default=tasks, metavar="TASK,TASK", help=", ".join(tasks))
    parser.add_argument(
        "--models", type=some_of(list(TITLES)), default=list(TITLES), metavar="MODEL,MODEL", help=", ".join(TITLES)
    )
    parser.add_argument("--seeds", type=positive, default=5, metavar="N", help="seeds 1 to N (default: 5)")
    parser.add_argument("--first_seed", type=positive, default=1, metavar="N", help="first seed (default: 1)")
    parser.add_argument(
        "--budget", type=time_limit, metavar="TIME", help="longest training, such as 90s, 20m or 1h (default: no limit)"
    )
    parser.add_argument("--jobs", type=positive, default=2, metavar="N", help="parallel trainings (default: 2)")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="CPU threads of each (default: 1)")
    parser.add_argument(
        "--episodes",
        type=positive,
        default=EPISODES[0],
        metavar="N",
        help="evaluated at 1-32 and at 33-128 (default: 10000)",
    )
    parser.add_argument(
        "--long_episodes",
        type=positive,
        default=EPISODES[2],
        metavar="N",
        help=f"evaluated at 129-1024 (default: {EPISODES[2]}; at most {SLOW_LONG_EPISODES} for lstm_attention)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs", "reproduce"),
        metavar="DIR",
        help="run folders (default: runs/reproduce)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="folder for results/ and RESULTS.md (default: here)"
    )
    parser.add_argument("--list", action="store_true", help="list finished and remaining trainings, and do nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    mine, overrides = recipe_overrides(list(sys.argv[1:] if argv is None else argv))
    arguments = parser.parse(mine)
    seeds = range(arguments.first_seed, arguments.seeds + 1)
    if not seeds:
        parser.error(f"Expected --first_seed of at most --seeds ({arguments.seeds}), but got {arguments.first_seed}")
    jobs = make_jobs(arguments.only, arguments.models, seeds, arguments.runs, overrides)
    settings = Settings(arguments.budget, arguments.threads, arguments.episodes, arguments.long_episodes)
    if arguments.list:
        for line in listed(jobs, arguments.budget):
            print(line)
        return 0
    return reproduce(jobs, settings, arguments.jobs, arguments.output)


if __name__ == "__main__":
    run(main)
