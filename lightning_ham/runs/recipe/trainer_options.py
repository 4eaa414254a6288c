"""The Trainer's options in a recipe: defaults, and checks before a training begins."""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Trainer

from lightning_ham.arguments import expect_integer, expect_number
from lightning_ham.foreign import quoted
from lightning_ham.training import TaskDataModule

DEFAULTS = {
    "devices": 1,
    "max_epochs": 200,
    "gradient_clip_val": 1.0,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}
"""A recipe's defaults that differ from Lightning's."""

LEFT_OUT = {
    "barebones": "a run folder without checkpoints and metrics would be an empty one; leave it out",
    "default_root_dir": "all files of a run are in its run folder; use 'run_dir'",
    "enable_checkpointing": "a run folder always has its checkpoints; for more of them use 'trainer.callbacks'",
    "fast_dev_run": "it leaves no checkpoint to evaluate; for a short try use 'trainer.max_epochs' with 1 and "
    "'data.batches_per_epoch' with few",
    "inference_mode": "validation and evaluation run without gradients as it is; leave it out",
    "limit_predict_batches": "a recipe predicts nothing; use python -m lightning_ham.solve with the trained model",
    "limit_test_batches": "a recipe ends with an evaluation instead of a test; use 'evaluation.episodes'",
    "model_registry": "models are published to the Hugging Face Hub; use 'hub.repo_id'",
    "overfit_batches": "no batch comes twice, so that there is nothing to overfit to; use 'data.batches_per_epoch'",
    "use_distributed_sampler": "the data share themselves out among processes; leave it out",
}
"""Options of the Trainer that no recipe may set, each with the reason and an alternative."""

_MOST_PROCESSES = 1024
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_AT_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "min_epochs": 0,
    "min_steps": 0,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
    "reload_dataloaders_every_n_epochs": 0,
}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a ValueError for a number that the Trainer accepts but that fails or misleads later.

    Args:
        options: The Trainer's options by name, with the right types.
    """
    for name, least in _AT_LEAST.items():
        if options[name] is not None:
            expect_integer(name, options[name], at_least=least)
    for name in ("max_epochs", "max_steps"):
        if options[name] not in (None, -1):
            if options[name] < 1:
                raise ValueError(
                    f"Expected argument `{name}` to be at least 1, or -1 for no limit, but got {options[name]}."
                )
            expect_integer(name, options[name])
    if options["profiler"] == "xla" and importlib.util.find_spec("torch_xla") is None:
        raise ValueError("Expected argument `profiler` to be another than 'xla', as torch_xla is not installed.")
    if options["devices"] == []:
        raise ValueError("Expected argument `devices` to name at least one device, but got [].")
    if type(options["devices"]) is int:
        expect_integer("devices", options["devices"], at_most=_MOST_PROCESSES)
    if options["gradient_clip_val"] is not None:
        expect_number("gradient_clip_val", options["gradient_clip_val"], at_least=0)
    _check_batches("limit_train_batches", options["limit_train_batches"])
    _check_batches("limit_val_batches", options["limit_val_batches"], may_be_none=True)
    _check_duration("max_time", options["max_time"])
    if isinstance(options["val_check_interval"], str | dict | datetime.timedelta):
        _check_duration("val_check_interval", options["val_check_interval"])
    else:
        _check_batches("val_check_interval", options["val_check_interval"])


def check_trainer(trainer: Trainer, options: Mapping[str, Any], data: TaskDataModule) -> None:
    """Raise a ValueError if a Trainer does not suit the data or our models.

    Args:
        trainer: The Trainer made from ``options``.
        options: See :func:`check_options`.
        data: The training data.
    """
    if trainer.precision not in PRECISIONS:
        raise ValueError(
            f"Expected argument `precision` to be one of {PRECISIONS}, but got {trainer.precision!r}: the nodes of a "
            "tree, and the weights that are saved, have 32 bits."
        )
    started, expected = int(os.environ.get("WORLD_SIZE", 1)), trainer.num_devices * trainer.num_nodes
    if torch.distributed.is_torchelastic_launched() and started != expected:
        raise ValueError(
            f"Expected argument `devices` times `num_nodes` to be the number of processes that torchrun has started "
            f"({started}), but got {trainer.num_devices} times {trainer.num_nodes}."
        )
    batches = _limited("limit_train_batches", options["limit_train_batches"], data.batches_per_epoch)
    validation = data.validation_batches(trainer.world_size)
    validation = _limited("limit_val_batches", options["limit_val_batches"], validation)
    interval, by_epoch = options["val_check_interval"], options["check_val_every_n_epoch"] is not None
    if isinstance(interval, int) and interval > batches and by_epoch and validation > 0:
        raise ValueError(
            f"Expected argument `val_check_interval` to be at most the batches of an epoch ({batches}), but got "
            f"{quoted(interval)}; to count batches of all epochs, set `check_val_every_n_epoch` to null."
        )
    if isinstance(interval, float) and interval != 1 and not by_epoch:
        raise ValueError(
            "Expected argument `val_check_interval` to be a number of batches where `check_val_every_n_epoch` is null, "
            f"but got {interval}."
        )


def _check_batches(name: str, value: int | float | None, *, may_be_none: bool = False) -> None:
    """Raise a ValueError unless ``value`` is a number of batches, or a share of them as a float up to 1."""
    if value is None or (may_be_none and value == 0):
        return
    expected = "a whole number of batches, or a share of them above 0 and up to 1.0"
    if isinstance(value, float):
        expect_number(name, value)
        fits = 0 < value <= 1 or (value > 1 and value.is_integer())
    else:
        fits = value >= 1
    if not fits:
        raise ValueError(f"Expected argument `{name}` to be {expected}, but got {quoted(value)}.")


def _limited(name: str, limit: int | float | None, batches: int) -> int:
    """Return how many of ``batches`` remain under a limit, which :func:`_check_batches` has accepted."""
    if limit is None:
        return batches
    if isinstance(limit, int) or limit > 1:
        return min(batches, int(limit))
    left = int(batches * limit)
    if left == 0 and limit > 0:
        raise ValueError(
            f"Expected argument `{name}` to leave one of {batches} batches, but got {limit}; give {1 / batches:.3g} or "
            "more."
        )
    return left


def _check_duration(name: str, value: str | datetime.timedelta | Mapping[str, Any] | None) -> None:
    """Raise a ValueError unless ``value`` is a duration above 0, in one of Lightning's forms."""
    if value is None:
        return
    complaint = ValueError(
        f"Expected argument `{name}` to be a time above 0 as DD:HH:MM:SS, or as a mapping such as {{hours: 1}}, "
        f"but got {quoted(value)}."
    )
    try:
        if isinstance(value, str):
            parts = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", value.strip(), re.ASCII)
            if parts is None:
                raise complaint
            days, hours, minutes, seconds = map(int, parts.groups())
            value = datetime.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        elif not isinstance(value, datetime.timedelta):
            value = datetime.timedelta(**value)
    except (TypeError, ValueError, OverflowError):
        raise complaint from None
    if value <= datetime.timedelta(0):
        raise complaint
