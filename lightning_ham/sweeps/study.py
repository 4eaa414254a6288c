"""A sweep's trials in Optuna's storage, which several processes and machines may share."""

from __future__ import annotations

import datetime
import time
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from lightning_ham.foreign import quoted, shown
from lightning_ham.runs.recipe.space import Dimension, Space
from lightning_ham.sweeps.plan import STUDY, Plan, Search, without_password
from lightning_ham.tasks.seeds import stream_seed

RETRIES = 3
"""Most times that a trial is retried after its process was killed."""
STARTED = "started"
"""Attribute of a trial: its own number, as soon as a process works on it; a retried trial inherits the former's."""
_SQLITE_TIMEOUT = 60
"""Seconds to wait while another process writes to the file."""
_OPENINGS = 10
"""Most times to try again while another process makes the tables."""
_SETTINGS = "settings"

STORAGE_ERRORS = (optuna.exceptions.StorageInternalError, SQLAlchemyError)
"""Errors of a storage that cannot be used (any more)."""


def open_storage(plan: Plan) -> RDBStorage:
    """Return the storage, with its tables.

    Raises:
        ValueError: If the URL is wrong, a driver is missing, or the database cannot be used.
    """
    url = plan.storage
    try:
        parsed = make_url(url)
        if parsed.database == str(plan.folder.absolute() / STUDY):
            plan.folder.mkdir(parents=True, exist_ok=True)
        options = {"connect_args": {"timeout": _SQLITE_TIMEOUT}} if parsed.get_backend_name() == "sqlite" else {}
        for _ in range(_OPENINGS):
            try:
                return _open(plan, options)
            except DBAPIError as error:
                if "exist" not in str(error):  # otherwise, another process makes the same tables at this moment
                    raise
                time.sleep(0.5)
        return _open(plan, options)
    except (ImportError, LookupError, ValueError, *STORAGE_ERRORS) as error:
        hint = "; install its driver, such as psycopg for postgresql+psycopg://" if _is_driver(error) else ""
        reason = shown(getattr(error, "orig", None) or error)
        raise ValueError(
            f"Expected a storage that can be used, such as sqlite:///study.db or postgresql+psycopg://user@host/name, "
            f"but got {quoted(without_password(url))}: {reason}{hint}"
        ) from error


def _open(plan: Plan, options: dict[str, Any]) -> RDBStorage:
    return RDBStorage(
        plan.storage,
        engine_kwargs={"pool_pre_ping": True, **options},
        heartbeat_interval=max(1, plan.grace // 4),
        grace_period=plan.grace,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(RETRIES),
    )


def _is_driver(error: Exception) -> bool:
    return isinstance(error, ImportError) or "NoSuchModule" in type(error).__name__


def open_study(plan: Plan, storage: RDBStorage) -> optuna.Study:
    """Return the study of a sweep; a new one if there is none.

    Raises:
        ValueError: If the storage has a sweep of this name with another recipe, space or other settings.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=plan.name,
        sampler=make_sampler(plan.search, 0),
        pruner=make_pruner(plan.search),
        load_if_exists=True,
    )
    settings = plan.settings()
    found = study.user_attrs.get(_SETTINGS)
    if found is None:
        study.set_user_attr(_SETTINGS, settings)
    elif found != settings:
        changed = [name for name in settings if settings[name] != found.get(name)]
        details = "; ".join(_difference(name, found.get(name), settings[name]) for name in changed)
        raise ValueError(
            f"Expected the settings with which the sweep {plan.name!r} began, but got others: {details}. Go on with "
            "the former ones, or give the new sweep another --name."
        )
    return study


def _difference(name: str, before: Any, now: Any) -> str:
    """Return where two settings differ, down to the first key."""
    while isinstance(before, dict) and isinstance(now, dict):
        key = next(key for key in [*now, *before] if now.get(key) != before.get(key))
        name, before, now = f"{name}.{key}" if name != "recipe" else key, before.get(key), now.get(key)
    return f"{name} was {quoted(before)}, and is {quoted(now)}"


def make_sampler(search: Search, number: int) -> BaseSampler:
    """Return a sampler for the trial of this number.

    So random values depend on the trial's number only, whichever process draws them; one stream for a process would
    begin anew, with the same values, in every process and session.
    """
    seed = stream_seed(search.seed, "sweep", number) % (1 << 32)
    return RandomSampler(seed=seed) if search.sampler == "random" else TPESampler(seed=seed)


def make_pruner(search: Search) -> BasePruner:
    """Return the pruner; trials report a value after each validation."""
    if search.pruner == "median":
        return MedianPruner(n_startup_trials=search.startup, n_warmup_steps=search.warmup)
    if search.pruner == "asha":
        return SuccessiveHalvingPruner(min_resource=max(1, search.warmup), reduction_factor=3)
    return NopPruner()


def draw(trial: Trial, space: Space) -> dict[str, Any]:
    """Return the values of a trial by key."""
    return {key: _suggest(trial, key, dimension) for key, dimension in space.items()}


def _suggest(trial: Trial, key: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:
        return trial.suggest_categorical(key, dimension.choices)
    low, high, log = dimension.low, dimension.high, dimension.log
    assert low is not None
    assert high is not None
    if dimension.is_integer:
        return trial.suggest_int(key, int(low), int(high), step=int(dimension.step or 1), log=log)
    return trial.suggest_float(key, low, high, step=dimension.step, log=log)


def first_number(trial: FrozenTrial) -> int:
    """Return the number of a trial, or of the trial that it retries."""
    found = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if found is None else found


def latest(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the last try of each trial by its first number, without trials that failed before they had values."""
    tries = sorted(trials, key=lambda trial: trial.number)
    return {
        first_number(trial): trial
        for trial in tries
        if trial.params or trial.state in (TrialState.RUNNING, TrialState.WAITING)
    }


def retry(study: optuna.Study, trial: FrozenTrial, most: int | None = RETRIES) -> None:
    """Put a failed trial into the queue again, with the same values; ``most`` times at most."""
    RetryHeartbeatStaleTrialCallback(most)(study, trial)


def fail_abandoned(study: optuna.Study, grace: int) -> None:
    """Fail and retry the trials whose process has died."""
    optuna.storages.fail_stale_trials(study)
    # A process may also have died between taking a trial and its first sign of life, which Optuna never notices.
    begun = datetime.datetime.now() - datetime.timedelta(seconds=grace)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        is_old = trial.datetime_start is not None and trial.datetime_start < begun
        if is_old and trial.user_attrs.get(STARTED) != trial.number:
            study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                retry(study, trial)


def quieten_optuna() -> None:
    """Leave reports about trials to us, and do not warn of what Optuna calls experimental."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
