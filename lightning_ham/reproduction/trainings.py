"""Runs trainings as processes, some in parallel."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, NoReturn

from lightning_ham.reproduction.jobs import Job
from lightning_ham.reproduction.records import RANGES, max_time
from lightning_ham.runs.folder import LAST, RECIPE

SLOW_LONG_EPISODES = 50
"""Most episodes at lengths 129-1,024 for LSTM+A, which takes a second for each."""
Outcome = Literal["done", "failed", "busy", "stopped"]
"""``busy``: another process runs this training. A training that outlives us still holds the lock."""
GRACE = 30.0
"""Seconds for a training to end after SIGTERM."""


class Settings(NamedTuple):
    """Options for all trainings."""

    budget: datetime.timedelta | None
    threads: int
    episodes: int
    long_episodes: int


def command(job: Job, settings: Settings) -> list[str]:
    """Return the arguments of ``fit`` that start or resume a job."""
    goes_on = (job.run_dir / LAST).is_file()
    if goes_on:
        arguments = [str(job.run_dir / RECIPE), "--ckpt_path=last"]
    else:
        arguments = [job.recipe, *job.overrides, f"--seed_everything={job.seed}"]
    long = min(settings.long_episodes, SLOW_LONG_EPISODES) if job.model == "lstm_attention" else settings.long_episodes
    arguments += [
        f"--run_dir={job.run_dir}",
        f"--threads={settings.threads}",
        f"--evaluation.lengths=[{', '.join(map(str, RANGES))}]",
        f"--evaluation.episodes={[settings.episodes, settings.episodes, long]}",
    ]
    if settings.budget is not None:
        arguments.append(f"--trainer.max_time={max_time(settings.budget)}")
    elif goes_on:
        arguments.append("--trainer.max_time=null")  # the recipe in the run folder may hold the limit that ended it
    return arguments


class Trainings:
    """Runs trainings as processes, until :meth:`stop`.

    Args:
        settings: Options for all trainings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def train(self, job: Job) -> Outcome:
        """Run a job; return its outcome."""
        job.run_dir.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return "busy"
            with self._lock:
                if self._stopped.is_set():
                    return "stopped"
                if job.is_done(self.settings.budget):  # meanwhile, by another process
                    return "done"
                process = subprocess.Popen(
                    [sys.executable, "-m", "lightning_ham.fit", *command(job, self.settings)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(self.settings.threads),
                    start_new_session=True,  # Ctrl-C reaches only us, and we stop it
                )
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
                stopped = self._stopped.is_set()
        if status == 0:
            return "done"
        return "stopped" if stopped else "failed"

    def stop(self) -> None:
        """End all trainings, which keep their last checkpoints, and start no more."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        for process in running:
            process.terminate()
        deadline = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def _environment(threads: int) -> dict[str, str]:
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    # By default not even offline runs in W&B: there would be many.
    return {"WANDB_MODE": "disabled"} | os.environ | dict.fromkeys(variables, str(threads))


def train_all(
    jobs: Sequence[Job], trainings: Trainings, workers: int, report: Callable[[Job, Outcome], None]
) -> set[Outcome]:
    """Run all jobs, ``workers`` in parallel; return their outcomes. Ctrl-C and SIGTERM stop them.

    ``report`` is called with each outcome as soon as the job ends.
    """

    def do(job: Job) -> Outcome:
        outcome = trainings.train(job)
        report(job, outcome)
        return outcome

    with _terminated_as_interrupted(), ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(do, job) for job in jobs]
        try:
            return {future.result() for future in futures}
        except BaseException as error:
            trainings.stop()
            for future in futures:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):
                return {"stopped"}
            raise


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
