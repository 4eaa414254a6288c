"""Runs a trial: draws its values, trains with each seed, reports validations, and ends what does not learn."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial

from lightning_ham.foreign import shown
from lightning_ham.pictures.curve import CurvePoint
from lightning_ham.reproduction.records import max_time
from lightning_ham.runs.folder import EVALUATION, LAST, RECIPE
from lightning_ham.runs.learning_curve import read_curve
from lightning_ham.runs.processes import Processes, environment
from lightning_ham.runs.recipe.space import override
from lightning_ham.sweeps.objective import Judged, judge, median, validated
from lightning_ham.sweeps.plan import Plan
from lightning_ham.sweeps.study import RETRIES, STARTED, draw, first_number, make_sampler, retry

TRAININGS = "trainings"
"""Attribute of a trial: how each of its trainings is judged, and its folder."""
NOTE = "note"
"""Attribute of a trial: why it failed or was pruned."""
TRIALS = "trials"
"""The folder of the trials' run folders, in that of the sweep."""
_SEED_STEPS = 10_000
"""Steps of a trial's reports between its seeds: more than the validations of any training."""
_NOT_FINITE = "Expected finite weights"
"""How the error of a training begins whose weights are not finite any more."""
_SIGNALLED = 128
"""Lowest exit status of a training that a signal ended in an orderly way."""


class TrainingError(Exception):
    """A training ended without a result.

    Args:
        message: Why.
        retries: Most times that its trial may be retried; None for no limit.
    """

    def __init__(self, message: str, retries: int | None = 0) -> None:
        super().__init__(message)
        self.retries = retries


class TrialRunner:
    """Runs one trial of a sweep.

    Args:
        plan: The sweep.
        processes: Runs its trainings.
    """

    def __init__(self, plan: Plan, processes: Processes) -> None:
        self.plan = plan
        self.begun = threading.Event()
        """Set when the storage has the trial."""
        self.number: int | None = None
        """The trial's number in the storage."""
        self._processes = processes
        self._error: TrainingError | None = None
        self._is_lost = False

    def run(self, study: optuna.Study) -> FrozenTrial:
        """Run a new or a waiting trial; return it.

        A trial whose process was killed, or that was interrupted, is put into the queue again.
        """
        try:
            study.optimize(self._objective, n_trials=1, catch=(TrainingError,))
        except ValueError:
            if not self._is_lost:  # the trial of another process by now, which Optuna refuses to end
                raise
        assert self.number is not None
        trial = study.get_trials(deepcopy=False)[self.number]
        if self._error is not None and self._error.retries != 0:
            retry(study, trial, self._error.retries)
        return trial

    def _objective(self, trial: Trial) -> float:
        self.number = trial.number
        self.begun.set()
        trial.set_user_attr(STARTED, trial.number)
        trial.study.sampler = make_sampler(self.plan.search, trial.number)
        try:
            values = draw(trial, self.plan.space)
            trial.set_user_attr(TRAININGS, [])
            trial.set_user_attr(NOTE, "")
            return self._train(trial, values)
        except TrainingError as error:
            self._error = error
            trial.set_user_attr(NOTE, shown(error))
            raise
        except UpdateFinishedTrialError as error:
            self._is_lost = True
            raise TrainingError("another process has taken it over, as this one gave no sign of life") from error

    def _train(self, trial: Trial, values: dict[str, Any]) -> float:
        """Train with each seed; return the value of the median one."""
        first = first_number(trial.study.get_trials(deepcopy=False)[trial.number])
        finished: list[Judged] = []
        for index, seed in enumerate(self.plan.seeds):
            training = _Training(self.plan, first, seed, values)
            followed = _Followed(trial, training, list(finished), index * _SEED_STEPS)
            try:
                self._run(training, followed)
            finally:
                curve = read_curve(training.run_dir)
                finished.append(judge(curve, self.plan.goal, seed))
                trial.set_user_attr(TRAININGS, finished)
            followed.report(curve)
        return median(finished)["value"]

    def _run(self, training: _Training, followed: _Followed) -> None:
        """Run a training to its end.

        Raises:
            TrialPruned: If the trial is pruned.
            TrainingError: If it ends without a result.
        """
        variables = environment(
            self.plan.threads, {"WANDB_RUN_GROUP": self.plan.name, "WANDB_JOB_TYPE": f"trial-{training.trial}"}
        )
        ended = self._processes.run(training.log, training.arguments, variables, followed)
        while ended.outcome == "busy":  # it has outlived the process that started it
            if not followed():
                raise TrialPruned
            self._processes.wait(1)
            ended = self._processes.run(training.log, training.arguments, variables, followed)
        if ended.outcome == "ended":
            raise TrialPruned
        if ended.outcome == "stopped":
            raise TrainingError("interrupted", retries=None)
        if ended.outcome == "failed":
            assert ended.status is not None
            if ended.status < 0 or ended.status > _SIGNALLED:
                number = -ended.status if ended.status < 0 else ended.status - _SIGNALLED
                raise TrainingError(f"ended by {signal.Signals(number).name}, see {training.log}", RETRIES)
            last = training.last_line()
            if _NOT_FINITE in last:
                followed.trial.set_user_attr(NOTE, "its weights are not finite any more")
                followed.report_worst()
                raise TrialPruned
            raise TrainingError(f"{last} (see {training.log})")


class _Training:
    """One training of a trial: its run folder, and its arguments of ``fit``."""

    def __init__(self, plan: Plan, trial: int, seed: int, values: dict[str, Any]) -> None:
        self.plan = plan
        self.trial = trial
        self.seed = seed
        self.values = values
        # Resumed only as the same training, even if a folder is used for another sweep.
        text = json.dumps([plan.settings(), values], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        self.run_dir = plan.folder / TRIALS / f"trial-{trial}-seed-{seed}-{digest}"
        self.log = self.run_dir.with_suffix(".log")

    def arguments(self) -> list[str] | None:
        """Return the arguments that start or resume it; None if it is done."""
        if (self.run_dir / EVALUATION).is_file():
            return None
        if (self.run_dir / LAST).is_file():
            arguments = [str(self.run_dir / RECIPE), "--ckpt_path=last"]
        else:
            values = (override(key, value) for key, value in self.values.items())
            arguments = [str(self.plan.recipe), *self.plan.overrides, *values, f"--seed_everything={self.seed}"]
        arguments += [f"--run_dir={self.run_dir}", f"--threads={self.plan.threads}"]
        if self.plan.budget is not None:
            arguments.append(f"--trainer.max_time={max_time(self.plan.budget)}")
        return arguments

    def last_line(self) -> str:
        """Return the last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((shown(line) for line in reversed(lines) if line.strip()), "it said nothing")


class _Followed:
    """Reports the validations of a running training; called, it returns whether the training should go on.

    Args:
        trial: The trial.
        training: The training.
        finished: How the trainings with earlier seeds are judged.
        first_step: Step of the first report.
    """

    def __init__(self, trial: Trial, training: _Training, finished: list[Judged], first_step: int) -> None:
        self.trial = trial
        self._training = training
        self._finished = finished
        self._first_step = first_step
        self._reported = 0
        self._sizes: list[int] = []

    def __call__(self) -> bool:
        """Report what is new."""
        files = sorted(self._training.run_dir.glob("metrics/version_*/metrics.csv"))
        sizes = [file.stat().st_size for file in files]
        if sizes == self._sizes or not all(map(_is_whole, files)):
            return True
        self._sizes = sizes
        before = self._reported
        self.report(read_curve(self._training.run_dir))
        return self._reported == before or not self.trial.should_prune()

    def report(self, curve: list[CurvePoint]) -> None:
        """Report the validations that were not reported yet: the median of the seeds, this one with its best so far."""
        goal, seed = self._training.plan.goal, self._training.seed
        points = validated(curve)
        for count in range(self._reported + 1, len(points) + 1):
            current = judge(points[:count], goal, seed, has_ended=False)
            self.trial.report(median([*self._finished, current])["value"], self._first_step + count)
        self._reported = max(self._reported, len(points))

    def report_worst(self) -> None:
        """Report the worst value there is, as nothing useful is left."""
        self._reported += 1
        self.trial.report(judge([], self._training.plan.goal, 0)["value"], self._first_step + self._reported)


def _is_whole(metrics: Path) -> bool:
    """Return whether the last line of a file is complete, as it is unless the file is just being written."""
    with metrics.open("rb") as file:
        return file.seek(0, 2) > 0 and file.seek(-1, 2) >= 0 and file.read() == b"\n"
