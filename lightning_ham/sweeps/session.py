"""A session of a sweep: runs the trials that remain, some at once, and writes the report after each."""

from __future__ import annotations

import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_ham.foreign import shown
from lightning_ham.hub.card import duration
from lightning_ham.runs import commands
from lightning_ham.runs.processes import Processes, terminated_as_interrupted
from lightning_ham.sweeps.plan import Plan, keep_recipe
from lightning_ham.sweeps.report import BEST, best_of, describe, write_best, write_pictures, write_tables
from lightning_ham.sweeps.study import (
    STORAGE_ERRORS,
    fail_abandoned,
    first_number,
    latest,
    make_sampler,
    open_storage,
    open_study,
    quieten_optuna,
)
from lightning_ham.sweeps.trials import NOTE, TrialRunner

_POLL = 1.0
"""Seconds between two looks at what other processes do."""
_MOST_FAILURES = 5
"""Trials that may fail in a row: more would fail for the same reason."""


class _TooManyFailures(Exception):
    """Trials fail one after the other."""


def sweep(plan: Plan) -> int:
    """Run the trials that remain, alone or with other processes that share the storage; return the exit status.

    Raises:
        ValueError: If the storage cannot be used, or has another sweep of this name.
    """
    quieten_optuna()
    storage = open_storage(plan)
    session = _Session(plan, storage, open_study(plan, storage))
    keep_recipe(plan)
    again = commands.command("sweep", *plan.words)
    try:
        with terminated_as_interrupted():
            session.run()
    except KeyboardInterrupt:
        session.finish()
        print(f"Interrupted. Go on with: {again}", flush=True)
        return 130
    except _TooManyFailures as error:
        session.finish()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except STORAGE_ERRORS as error:
        reason = shown(getattr(error, "orig", None) or error)
        print(f"error: The storage cannot be used any more: {reason}. Go on with: {again}", file=sys.stderr)
        return 1
    return session.finish()


class _Session:
    """The trials that this process runs."""

    def __init__(self, plan: Plan, storage: RDBStorage, study: optuna.Study) -> None:
        self._plan = plan
        self._storage = storage
        self._study = study
        self._processes = Processes()
        self._start = time.monotonic()
        self._failures = 0

    def run(self) -> None:
        """Run trials until none remains, here or elsewhere."""
        plan = self._plan
        fail_abandoned(self._study, plan.grace)
        done = len(self._by_state(*_ENDED))
        print(f"{plan.trials} trials, {done} of them done already, in {plan.folder}", flush=True)
        waits = False
        with ThreadPoolExecutor(plan.jobs) as pool:
            running: set[Future[FrozenTrial]] = set()
            try:
                while True:
                    while len(running) < plan.jobs and self._remains():
                        running.add(self._begin(pool))
                    if running:
                        ended, running = wait(running, _POLL, FIRST_COMPLETED)
                        for future in ended:
                            self._tell(future.result())
                        continue
                    others = self._by_state(TrialState.RUNNING)
                    if not others:
                        return
                    if not waits:
                        names = ", ".join(str(first_number(trial)) for trial in others)
                        print(
                            f"Waiting for trials of other processes: {names}. One whose process has died begins anew "
                            f"{duration(plan.grace)} after its last sign of life.",
                            flush=True,
                        )
                    waits = True
                    time.sleep(_POLL)
                    fail_abandoned(self._study, plan.grace)
            except BaseException:
                self._processes.stop()
                raise

    def finish(self) -> int:
        """Write the report, and say what is best; return the exit status."""
        for write in (write_tables, write_best, write_pictures):
            for path in write(self._plan, self._study):
                print(f"Wrote {path}")
        best = best_of(self._by_state(TrialState.COMPLETE))
        if best is None:
            print("No trial has come to its end.", flush=True)
            return 1
        print(f"Best: {describe(best, self._plan)}")
        print(f"Train it: {commands.command('fit', self._plan.folder / BEST)}", flush=True)
        return 0

    def _by_state(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the last tries that are in one of these states."""
        tries = latest(self._study.get_trials(deepcopy=False))
        return [trial for trial in tries.values() if trial.state in states]

    def _remains(self) -> bool:
        """Return whether there is a trial to begin."""
        trials = self._study.get_trials(deepcopy=False)
        return len(latest(trials)) < self._plan.trials or any(trial.state == TrialState.WAITING for trial in trials)

    def _begin(self, pool: ThreadPoolExecutor) -> Future[FrozenTrial]:
        """Begin a trial, and wait until the storage has it."""
        runner = TrialRunner(self._plan, self._processes)
        study = optuna.load_study(
            study_name=self._plan.name,
            storage=self._storage,
            sampler=make_sampler(self._plan.search, len(self._study.get_trials(deepcopy=False))),
            pruner=self._study.pruner,
        )
        future = pool.submit(runner.run, study)
        while not runner.begun.wait(0.1) and not future.done():
            pass
        return future

    def _tell(self, trial: FrozenTrial) -> None:
        """Report a trial that has ended."""
        if trial.state == TrialState.FAIL and trial.user_attrs.get(NOTE) == "interrupted":
            return
        done = len(self._by_state(*_ENDED))
        elapsed = duration(time.monotonic() - self._start)
        print(f"[{done}/{self._plan.trials}, {elapsed}] {describe(trial, self._plan)}", flush=True)
        write_tables(self._plan, self._study)
        best = best_of(self._by_state(TrialState.COMPLETE))
        if best is not None and best.number == trial.number:
            write_best(self._plan, self._study)
        self._failures = self._failures + 1 if trial.state == TrialState.FAIL else 0
        if self._failures >= _MOST_FAILURES:
            raise _TooManyFailures(
                f"{self._failures} trials have failed one after the other, so that the sweep ends; the last one: "
                f"{trial.user_attrs.get(NOTE)}"
            )


_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
