"""Runs trainings as processes, some in parallel."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

from lightning_ham.reproduction.jobs import Job
from lightning_ham.reproduction.records import RANGES, max_time
from lightning_ham.runs.folder import LAST, RECIPE
from lightning_ham.runs.processes import Processes, environment, terminated_as_interrupted

SLOW_LONG_EPISODES = 50
"""Most episodes at lengths 129-1,024 for LSTM+A, which takes a second for each."""
Outcome = Literal["done", "failed", "busy", "stopped"]
"""``busy``: another process runs this training. A training that outlives us still holds the lock."""


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
        self._processes = Processes()

    def train(self, job: Job) -> Outcome:
        """Run a job; return its outcome."""

        def arguments() -> list[str] | None:
            return None if job.is_done(self.settings.budget) else command(job, self.settings)

        # By default not even offline runs in W&B: there would be many.
        variables = environment(self.settings.threads, {"WANDB_MODE": "disabled"})
        outcome = self._processes.run(job.log, arguments, variables).outcome
        assert outcome != "ended"  # nothing watches it
        return outcome

    def stop(self) -> None:
        """End all trainings, which keep their last checkpoints, and start no more."""
        self._processes.stop()


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

    with terminated_as_interrupted(), ThreadPoolExecutor(workers) as pool:
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
