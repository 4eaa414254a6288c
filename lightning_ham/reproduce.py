"""Train every recipe and its comparison models with several seeds: ``python -m lightning_ham.reproduce``.

Each training is a ``fit`` of its own, in ``runs/reproduce/TASK-MODEL-DIGEST/SEED``, some side by side. The digest is of
what the recipe says: a run is done once, however often this is started, until its recipe changes. What was interrupted
goes on from its last checkpoint. After every training ``results/TASK-MODEL.json`` and ``RESULTS.md`` are written anew.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, positive, run
from lightning_ham.hub.card import duration
from lightning_ham.reproduction.jobs import Job, collect, make_jobs, reproducible_tasks
from lightning_ham.reproduction.records import EPISODES, FOLDER, TITLES, wrong_counts
from lightning_ham.reproduction.report import write
from lightning_ham.reproduction.trainings import SLOW_LONG_EPISODES, Outcome, Settings, Trainings, train_all


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "reproduce",
        "Train every recipe and its comparison models with several seeds, evaluate them on fresh episodes, and write\n"
        "results/*.json and RESULTS.md. Start it again to go on: what has ended is not done again, and what a smaller\n"
        "--budget cut off is gone on with.",
        epilog="Keys of recipes, in the form --trainer.max_epochs=10, override them in every training.",
    )
    tasks = reproducible_tasks()
    parser.add_argument("--only", type=_names(tasks), default=tasks, metavar="TASK,TASK", help=", ".join(tasks))
    parser.add_argument(
        "--models", type=_names(list(TITLES)), default=list(TITLES), metavar="MODEL,MODEL", help=", ".join(TITLES)
    )
    parser.add_argument("--seeds", type=positive, default=5, metavar="N", help="seeds 1 to N (default: 5)")
    parser.add_argument("--first_seed", type=positive, default=1, metavar="N", help="begin at this one (default: 1)")
    parser.add_argument(
        "--budget", type=_duration, metavar="TIME", help="longest training, such as 90s, 20m or 1h (default: no limit)"
    )
    parser.add_argument("--jobs", type=positive, default=2, metavar="N", help="trainings side by side (default: 2)")
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
        "--output", type=Path, default=Path(), metavar="DIR", help="where results/ and RESULTS.md go (default: here)"
    )
    parser.add_argument("--list", action="store_true", help="say what is done and what is to be done, and do nothing")
    return parser


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"Expected some of {', '.join(known)}, but got {name!r}")
        return chosen

    return names


def _duration(text: str) -> datetime.timedelta:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds < 1:
        raise argparse.ArgumentTypeError(f"Expected a time such as 90s, 20m or 1h, but got {text!r}")
    return datetime.timedelta(seconds=seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Reproduce as the command line says; return the exit status."""
    parser = make_parser()
    mine, overrides = _split(list(sys.argv[1:] if argv is None else argv))
    arguments = parser.parse(mine)
    seeds = range(arguments.first_seed, arguments.seeds + 1)
    if not seeds:
        parser.error(f"Expected --first_seed of at most --seeds ({arguments.seeds}), but got {arguments.first_seed}")
    runs, output = arguments.runs, arguments.output
    jobs = make_jobs(arguments.only, arguments.models, seeds, runs, overrides)
    todo = [job for job in jobs if not job.is_done(arguments.budget)]
    if arguments.list:
        for job in jobs:
            state = "done" if job not in todo else "begun" if job.log.exists() else "to do"
            print(f"{state:5}  {job.name}  {job.run_dir}")
        return 0
    print(f"{len(jobs)} trainings, {len(jobs) - len(todo)} of them done already", flush=True)
    settings = Settings(arguments.budget, arguments.threads, arguments.episodes, arguments.long_episodes)
    report = _Report(output, len(jobs), len(jobs) - len(todo))
    for job in {(job.task, job.model): job for job in jobs}.values():
        collect(job, output / FOLDER)
    outcomes = train_all(todo, Trainings(settings), arguments.jobs, report.add)
    for path in write(output):
        print(f"Wrote {path}")
    if "stopped" in outcomes:
        print("Interrupted. Go on with the same command.", flush=True)
        return 130
    return 1 if "failed" in outcomes else 0


def _split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Part our own options from keys of recipes, which are written ``--group.key=value``."""
    overrides = [argument for argument in argv if re.match(r"--\w+\.[\w.]+=", argument)]
    return [argument for argument in argv if argument not in overrides], tuple(overrides)


class _Report:
    """Collects after every training, and prints a line about it."""

    def __init__(self, output: Path, total: int, done: int) -> None:
        self.output, self.total, self.finished = output, total, done
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def add(self, job: Job, outcome: Outcome) -> None:
        """Take in how a job ended."""
        with self._lock:
            if outcome == "stopped":
                return
            self.finished += 1
            words = self._words(job) if outcome == "done" else _FAILURES[outcome].format(log=job.log)
            elapsed = duration(time.monotonic() - self._start)
            print(f"[{self.finished}/{self.total}, {elapsed}] {job.name}: {words}", flush=True)

    def _words(self, job: Job) -> str:
        collected = collect(job, self.output / FOLDER)
        assert collected is not None  # this job's run has ended
        write(self.output)
        (run_,) = (run_ for run_ in collected["runs"] if run_["seed"] == job.seed)
        bar = {True: "bar reached", False: "bar missed", None: "no bar"}[run_["reached_bar"]]
        return f"wrong: {wrong_counts(run_)}; {bar}; {run_['updates']:,} updates in {duration(run_['seconds'])}"


_FAILURES = {
    "failed": "FAILED, see {log}",
    "busy": "left alone, as another process trains it (it writes {log})",
}


if __name__ == "__main__":
    run(main)
