"""A guard against trainings that break up: outlying updates are left out, and what was best is gone back to."""

from __future__ import annotations

import copy
import logging
import statistics
from collections import deque
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_ham.arguments import expect_integer, expect_number
from lightning_ham.training.callbacks import LengthCurriculum, MovingAverage, validation_error
from lightning_ham.training.datamodule import TaskDataModule

_LOG = logging.getLogger(__name__)


class BreakUpGuard(Callback):
    """Leaves out updates far outside the run's own, and goes back to the best weights when a training breaks up.

    A gradient whose norm is far above those before it says little about the loss: the update is left out. A training
    *breaks up* when its validation score (see :class:`~lightning_ham.training.HAMModule`) stays far above its best, or
    when what was learned is lost as the curriculum goes on to the next capacity (once for each). It then goes on from
    the weights and the optimizer's state of the best validation, at the capacity of that time and with a smaller
    learning rate. All of this is part of the checkpoint.

    Must stand before :class:`MovingAverage` among the callbacks, to see the weights that were validated.

    Args:
        skip_above: An update is left out if its gradient's norm is above this multiple of the median norm since the
            last change of capacity (of at most 100 updates, at least 20). Those that are not finite are left to end the
            training.
        tolerance: How far the score may lie above the best one, as a share of wrong sequences in [0, 1].
        patience: Validations in a row that must be worse than that before the training goes back.
        lost_above: Share of wrong sequences at a capacity that the curriculum has gone on to, from which on what was
            learned counts as lost.
        slower: Factor of the learning rate at every return, above 0 and at most 1.
        returns: Most returns in a training; 0 never goes back.

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
        """Times that the training has gone back."""
        self._norms: deque[float] = deque(maxlen=self._window)
        self._capacity: int | None = None  # at which these norms were seen
        self._validated: dict[str, Tensor] | None = None
        self._best: dict[str, Any] | None = None
        self._worse = 0
        self._tried: list[int | None] = []  # capacities that were gone back from

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Leave an outlying update out, by leaving its parameters without gradients."""
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
        """Keep the weights that were validated, until their score is known."""
        self._validated = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the best weights; go back to them if the training has broken up."""
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
        """Return the best weights and all counts, so that a resumed run decides as it would have."""
        return {
            "returned": self.returned,
            "worse": self._worse,
            "norms": list(self._norms),
            "capacity": self._capacity,
            "best": self._best,
            "tried": self._tried,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.returned, self._worse = state_dict["returned"], state_dict["worse"]
        self._norms = deque(state_dict["norms"], maxlen=self._window)
        self._capacity, self._best, self._tried = state_dict["capacity"], state_dict["best"], state_dict["tried"]


def _capacity(trainer: Trainer) -> int | None:
    """Return the leaves that the curriculum is at, None where the data are not ours."""
    data = getattr(trainer, "datamodule", None)
    return data.capacity if isinstance(data, TaskDataModule) else None
