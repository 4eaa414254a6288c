"""A guard against trainings that break up: it skips outlying updates and returns to the best weights."""

from __future__ import annotations

import copy
import logging
import statistics
from collections import deque
from typing import Any

import torch
from torch import Tensor

from lightning_ham.arguments import expect_integer, expect_number
from lightning_ham.training.callbacks import LengthCurriculum, MovingAverage, validation_error
from lightning_ham.training.datamodule import TaskDataModule
from lightning_ham.training.namespace import Callback, LightningModule, Trainer

_LOG = logging.getLogger(__name__)


class BreakUpGuard(Callback):
    """Skips updates with outlying gradients, and returns to the best weights when a training breaks up.

    A gradient with a norm far above the previous ones says little about the loss, so its update is skipped. A training
    *breaks up* when its validation score (see :class:`~lightning_ham.training.HAMModule`) stays far above its best, or
    when it forgets what it learned as the curriculum advances to the next capacity (once for each). It then continues
    from the weights, the optimizer's state and the capacity of the best validation, with a smaller learning rate.
    Checkpoints include all of this.

    Put it before :class:`MovingAverage` in the list of callbacks, so that it sees the validated weights.

    Args:
        skip_above: Skip an update if its gradient's norm is above this multiple of the median norm since the last
            change of capacity (over the last 20 to 100 updates). Norms that are not finite are not skipped: they end
            the training.
        tolerance: Accepted distance of the score from the best one, as a share of wrong sequences in [0, 1].
        patience: Consecutive validations beyond the tolerance before the training returns.
        lost_above: Share of wrong sequences at a new capacity above which the training counts as broken up.
        slower: Factor of the learning rate at every return, above 0 and at most 1.
        returns: Most returns in a training; 0 for none.

    Raises:
        ValueError: If an argument is out of its range.
    """

    _window, _fewest = 100, 20

    def __init__(
        self,
        skip_above: float = 20.0,
        tolerance: float = 0.1,
        patience: int = 5,
        lost_above: float = 0.6,
        slower: float = 0.5,
        returns: int = 5,
    ) -> None:
        expect_number("skip_above", skip_above, above=1)
        expect_number("tolerance", tolerance, above=0, at_most=1)
        expect_integer("patience", patience, at_least=1)
        expect_number("lost_above", lost_above, above=0, at_most=1)
        expect_number("slower", slower, above=0, at_most=1)
        expect_integer("returns", returns, at_least=0)
        self.skip_above = skip_above
        self.tolerance = tolerance
        self.patience = patience
        self.lost_above = lost_above
        self.slower = slower
        self.returns = returns
        self.returned = 0
        """Number of returns so far."""
        self._norms: deque[float] = deque(maxlen=self._window)
        self._capacity: int | None = None  # of these norms
        self._validated: dict[str, Tensor] | None = None
        self._best: dict[str, Any] | None = None
        self._worse = 0
        self._tried: list[int | None] = []  # capacities at which a training broke up

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Skip an outlying update, by removing the gradients of all parameters."""
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        capacity = _capacity(trainer)
        if capacity != self._capacity:  # larger trees have larger gradients
            self._norms.clear()
            self._capacity = capacity
        typical = statistics.median(self._norms) if len(self._norms) >= self._fewest else torch.inf
        skipped = self.skip_above * typical < norm < torch.inf
        if norm < torch.inf:
            self._norms.append(norm)
        if skipped:
            pl_module.zero_grad(set_to_none=True)
        pl_module.log("train/skipped_updates", float(skipped), on_step=False, on_epoch=True, reduce_fx="sum")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the validated weights until their score is known."""
        self._validated = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the best weights; return to them if the training has broken up."""
        score = trainer.callback_metrics.get("val/score")
        validated, self._validated = self._validated, None
        if trainer.sanity_checking or not trainer.optimizers or score is None or validated is None:
            return
        capacity, current = _capacity(trainer), validation_error(trainer, "current")
        advanced = self._best is not None and capacity != self._best["capacity"]
        lost = advanced and capacity not in self._tried and current is not None and current > self.lost_above
        if not lost and (self._best is None or float(score) <= self._best["score"]):
            self._best = {
                "score": float(score),
                "epoch": trainer.current_epoch,
                "capacity": capacity,
                "weights": validated,
                "optimizers": [copy.deepcopy(optimizer.state_dict()["state"]) for optimizer in trainer.optimizers],
            }
        assert self._best is not None
        is_worse = lost or not float(score) <= self._best["score"] + self.tolerance
        self._worse = self._worse + 1 if is_worse else 0
        if self._worse >= self.patience and self.returned < self.returns:
            self._tried.append(capacity)
            self._go_back(trainer, pl_module, self._best)

    def _go_back(self, trainer: Trainer, pl_module: LightningModule, best: dict[str, Any]) -> None:
        self.returned += 1
        self._worse = 0
        self._norms.clear()
        pl_module.load_state_dict(best["weights"])
        for optimizer, state in zip(trainer.optimizers, best["optimizers"], strict=True):
            now = optimizer.state_dict()
            for group in now["param_groups"]:
                group["lr"] *= self.slower
            optimizer.load_state_dict({**now, "state": copy.deepcopy(state)})
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, MovingAverage):
                callback.restart(pl_module)
            elif isinstance(callback, LengthCurriculum) and best["capacity"]:
                callback.go_back(trainer, best["capacity"])
        if trainer.is_global_zero:
            _LOG.info(
                "The training broke up: it goes on from the weights of epoch %d, at %s of the learning rate.",
                best["epoch"] + 1,
                f"{self.slower:.0%}",
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the best weights and all counts, so that a resumed run decides as an uninterrupted one."""
        return {
            "returned": self.returned,
            "worse": self._worse,
            "norms": list(self._norms),
            "capacity": self._capacity,
            "best": self._best,
            "tried": self._tried,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best weights and all counts."""
        self.returned, self._worse = state_dict["returned"], state_dict["worse"]
        self._norms = deque(state_dict["norms"], maxlen=self._window)
        self._capacity, self._best, self._tried = state_dict["capacity"], state_dict["best"], state_dict["tried"]


def _capacity(trainer: Trainer) -> int | None:
    """Return the curriculum's current leaves; None without a :class:`TaskDataModule`."""
    data = getattr(trainer, "datamodule", None)
    return data.capacity if isinstance(data, TaskDataModule) else None
