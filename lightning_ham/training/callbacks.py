"""Callbacks: a curriculum of lengths, early stops, averaged weights, and the speed of training."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_ham.arguments import expect_integer, expect_number
from lightning_ham.tasks import Episodes, Lengths
from lightning_ham.training.datamodule import TaskDataModule
from lightning_ham.training.namespace import Callback, LightningModule, Trainer, WeightAveraging

_LOG = logging.getLogger(__name__)


def _datamodule(trainer: Trainer, callback: Callback) -> TaskDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, TaskDataModule):
        raise TypeError(f"Expected {type(callback).__name__} beside a TaskDataModule, but got {type(data).__name__}.")
    return data


def validation_error(trainer: Trainer, name: str) -> float | None:
    """Return the last sequence error of the validation set ``name``; None before the first."""
    error = trainer.callback_metrics.get(f"val/{name}/sequence_error")
    # In a metric's 32 bits, 1 of 1,000 is slightly above a bar of 0.001.
    return None if error is None else round(float(error), 7)


def _set_name(name: str) -> str:
    """Return the name of the validation set of these lengths; return other text unchanged, to be refused later."""
    try:
        return str(Lengths.of(name))
    except ValueError:
        return name


class LengthCurriculum(Callback):
    """Doubles the capacity of episodes whenever the validation error at the current one is small enough.

    The error covers all processes, so every process decides the same. Checkpoints include the capacity.

    Args:
        threshold: Double the capacity when the share of wrong sequences at the current one is below this.
    """

    def __init__(self, threshold: float = 0.1) -> None:
        expect_number("threshold", threshold, above=0, at_most=1)
        self.threshold = threshold
        self._capacity: int | None = None  # kept here, as a checkpoint is loaded without the Trainer

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue at the capacity of the checkpoint, if any."""
        data = _datamodule(trainer, self)
        data.capacity = min(self._capacity or data.capacity, data.final_capacity)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the capacity of this epoch."""
        pl_module.log("curriculum/capacity", float(_datamodule(trainer, self).capacity))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Double the capacity if its error is below the threshold."""
        data = _datamodule(trainer, self)
        error = validation_error(trainer, "current")
        if not trainer.sanity_checking and error is not None and error < self.threshold:
            data.capacity = min(2 * data.capacity, data.final_capacity)
        self._capacity = data.capacity

    def go_back(self, trainer: Trainer, capacity: int) -> None:
        """Return to a former ``capacity``."""
        _datamodule(trainer, self).capacity = self._capacity = capacity

    def state_dict(self) -> dict[str, Any]:
        """Return the capacity reached."""
        return {"capacity": self._capacity}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the capacity."""
        self._capacity = state_dict["capacity"]


class StopAtErrors(Callback):
    """Ends the training once all validation sets with a bar meet it.

    Args:
        errors: The highest sequence error, in [0, 1], by the lengths of the validation set, such as
            ``{"1-32": 0.001}``; None to train for all epochs.
        patience: Number of consecutive validations that must meet all bars.
    """

    def __init__(self, errors: dict[str, float] | None = None, patience: int = 1) -> None:
        for name, error in (errors or {}).items():
            expect_number(f"errors.{name}", error, at_least=0, at_most=1)
        expect_integer("patience", patience, at_least=1)
        self.errors = {_set_name(name): error for name, error in (errors or {}).items()}
        self.patience = patience
        self._met = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that every bar has a validation set."""
        self.check(_datamodule(trainer, self))

    def check(self, data: TaskDataModule) -> None:
        """Raise a ValueError unless every bar has a validation set in ``data``."""
        names = [str(lengths) for lengths in data.validation_lengths]
        for name in self.errors:
            if name not in names:
                raise ValueError(
                    f"Expected argument `errors` to name validation sets ({', '.join(names)}), but got {name!r}."
                )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count consecutive validations that meet all bars, and stop after ``patience`` of them."""
        if trainer.sanity_checking:
            return
        measured = {name: validation_error(trainer, name) for name in self.errors}
        met = bool(measured) and all(
            error is not None and error <= self.errors[name] for name, error in measured.items()
        )
        self._met = self._met + 1 if met else 0
        if self._met >= self.patience:
            trainer.should_stop = True
            if trainer.is_global_zero:
                bars = ", ".join(f"{error:.2%} at lengths {name}" for name, error in self.errors.items())
                _LOG.info("The bar is met (at most %s wrong): training ends.", bars)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of consecutive validations that met all bars."""
        return {"met": self._met}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count."""
        self._met = state_dict["met"]


def _average(averaged: Tensor, current: Tensor, updates: Tensor, decay: float) -> Tensor:
    weight = ((1 + updates) / (10 + updates)).clamp(max=decay)
    return torch.lerp(current, averaged, weight.to(averaged.dtype))


class MovingAverage(WeightAveraging):
    """Keeps an exponential moving average of the weights, for validation, checkpoints and the final model.

    The n-th update has the decay ``min(decay, (1 + n) / (10 + n))``, so that the average does not lag behind the
    curriculum at the start.

    Args:
        decay: Share of the old average that an update keeps.
    """

    def __init__(self, decay: float = 0.99) -> None:
        expect_number("decay", decay, at_least=0, below=1)

        super().__init__(use_buffers=False, avg_fn=partial(_average, decay=decay))  # the buffers are constants

    def restart(self, pl_module: LightningModule) -> None:
        """Start a new average from the weights of ``pl_module``."""
        assert self._average_model is not None
        self._average_model.module.load_state_dict(pl_module.state_dict())
        self._average_model.n_averaged.zero_()


class EndIfNotFinite(Callback):
    """Ends a training as soon as a weight is no longer finite, as nothing is learned after that.

    All processes notice before any of them saves, so the last checkpoint holds finite weights.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Episodes, batch_idx: int
    ) -> None:
        """Raise a FloatingPointError unless all weights are finite."""
        finite = torch.stack([parameter.detach().isfinite().all() for parameter in pl_module.parameters()])
        if not finite.all():
            raise FloatingPointError(
                f"Expected finite weights, but got nan or inf at update {trainer.global_step} "
                f"(epoch {trainer.current_epoch + 1})"
            )


class EpisodeCounter(Callback):
    """Counts episodes and time, over all processes and all parts of a resumed run.

    Logs ``train/episodes_per_second`` (without validation), ``train/episodes`` and ``train/seconds``.
    """

    def __init__(self) -> None:
        self.episodes = 0
        """Number of training episodes so far."""
        self.seconds = 0.0
        """Seconds of training, with validation, up to the last complete epoch."""
        self._started = 0.0
        self._epoch_episodes = 0
        self._epoch_seconds = 0.0
        self._batch_start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, or continue from a checkpoint."""
        self._started = time.perf_counter() - self.seconds

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the counts of the epoch."""
        self._epoch_episodes, self._epoch_seconds, self._batch_start = 0, 0.0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Episodes, batch_idx: int
    ) -> None:
        """Count a batch and the time since the last one, which includes drawing the episodes."""
        now = time.perf_counter()
        self._epoch_episodes += len(batch.lengths) * trainer.world_size
        self._epoch_seconds += now - self._batch_start
        self._batch_start = now

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch."""
        self.episodes += self._epoch_episodes
        self.seconds = time.perf_counter() - self._started
        pl_module.log("train/episodes_per_second", self._epoch_episodes / max(self._epoch_seconds, 1e-9))
        pl_module.log("train/episodes", float(self.episodes))
        pl_module.log("train/seconds", self.seconds)

    def state_dict(self) -> dict[str, Any]:
        """Return the totals, so that a resumed run continues them."""
        return {"episodes": self.episodes, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the totals."""
        self.episodes, self.seconds = state_dict["episodes"], state_dict["seconds"]
