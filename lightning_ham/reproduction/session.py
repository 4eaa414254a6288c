"""A session of trainings: those that are left are done, and after each the tables are written anew."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_ham.hub.card import duration
from lightning_ham.reproduction.jobs import Job, collect
from lightning_ham.reproduction.records import FOLDER, wrong_counts
from lightning_ham.reproduction.report import write
from lightning_ham.reproduction.trainings import Outcome, Settings, Trainings, train_all


def listed(jobs: Sequence[Job], budget: datetime.timedelta | None) -> Iterator[str]:
    """Yield a line for each job: whether it is done, where it is trained."""
    for job in jobs:
        state = "done" if job.is_done(budget) else "begun" if job.log.exists() else "to do"
        yield f"{state:5}  {job.name}  {job.run_dir}"


def reproduce(jobs: Sequence[Job], settings: Settings, side_by_side: int, output: Path) -> int:
    """Do the jobs that are left, and write the tables of all; return the exit status.

    Args:
        jobs: What there is to train.
        settings: How.
        side_by_side: Trainings at a time.
        output: The folder for ``results/`` and ``RESULTS.md``.
    """
    todo = [job for job in jobs if not job.is_done(settings.budget)]
    done = len(jobs) - len(todo)
    print(f"{len(jobs)} trainings, {done} of them done already", flush=True)
    report = _Report(output, len(jobs), done)
    for job in {(job.task, job.model): job for job in jobs}.values():
        collect(job, output / FOLDER)
    outcomes = train_all(todo, Trainings(settings), side_by_side, report.add)
    for path in write(output):
        print(f"Wrote {path}")
    if "stopped" in outcomes:
        print("Interrupted. Go on with the same command.", flush=True)
        return 130
    return 1 if "failed" in outcomes else 0


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
