"""A session: runs the remaining trainings, and writes the tables after each."""

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
    """Yield a line for each job: its state, name and run folder."""
    for job in jobs:
        state = "done" if job.is_done(budget) else "begun" if job.log.exists() else "to do"
        yield f"{state:5}  {job.name}  {job.run_dir}"


def reproduce(jobs: Sequence[Job], settings: Settings, side_by_side: int, output: Path) -> int:
    """Run the remaining jobs, and write the tables of all; return the exit status.

    Args:
        jobs: All trainings.
        settings: How to run them.
        side_by_side: Number of parallel trainings.
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
    """Collects results after every training, and prints a line about it."""

    def __init__(self, output: Path, total: int, done: int) -> None:
        self.output, self.total, self.finished = output, total, done
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def add(self, job: Job, outcome: Outcome) -> None:
        """Report the outcome of a job."""
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
