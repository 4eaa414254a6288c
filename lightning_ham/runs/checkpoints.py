"""The two checkpoints of a run, ``best.ckpt`` and ``last.ckpt``."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lightning_ham.hub.pretrained import TrainedModel
from lightning_ham.runs.folder import BEST, LAST, write_whole

_SCORE = "best_model_score"
_LOG = logging.getLogger("lightning_ham")


class BestCheckpoint(Checkpoint):
    """Keeps the validated weights with the lowest ``val/score``; in a tie, the latest ones.

    It saves only weights that were validated as they are. The best checkpoint holds its own score, so a run resumes in
    the same way from any checkpoint, wherever its folder is.

    Args:
        run_dir: The run folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / BEST
        self.score: float | None = None
        """The best score so far; None before the first validation."""
        self._validated_at: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the score of the best checkpoint, if there is one."""
        self.score = trainer.strategy.broadcast(_score_of(self.path) if trainer.is_global_zero else None)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the end of the epoch, when its counts are complete, unless the weights will change before."""
        if trainer.sanity_checking:
            return
        self._validated_at = trainer.global_step
        if not trainer.is_last_batch:
            self._save_if_best(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights if they are the best and unchanged since their validation."""
        if self._validated_at == trainer.global_step:
            self._save_if_best(trainer)

    def _save_if_best(self, trainer: Trainer) -> None:
        score = float(trainer.callback_metrics["val/score"])
        if self.score is None or score <= self.score:  # the same in all processes, as errors are summed over them
            self.score = score
            trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score, which :meth:`on_train_start` reads."""
        return {_SCORE: self.score}


def _score_of(path: Path) -> float | None:
    """Return the score in a best checkpoint; None if it is missing or unreadable."""
    if not path.exists():
        return None
    try:
        callbacks = torch.load(path, map_location="cpu", weights_only=True)["callbacks"]
        return float(callbacks[BestCheckpoint.__qualname__][_SCORE])
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, LookupError, TypeError, ValueError):
        _LOG.warning("%s does not tell how good it is; the next validated weights replace it.", path)
        return None


class LastCheckpoint(Checkpoint):
    """Makes a run resumable from its first step, and from every epoch.

    ModelCheckpoint's ``save_last`` would save only together with the best checkpoint.

    Args:
        run_dir: The run folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LAST

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.strategy.broadcast(self.path.exists()):
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class WholeCheckpointIO(TorchCheckpointIO):
    """Replaces checkpoints atomically, and refuses weights that are not finite.

    Lightning itself would write to the system's temporary folder, which may be on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        for part in ("state_dict", "current_model_state"):  # the averaged weights and the weights in training
            for name, value in checkpoint.get(part, {}).items():
                if value.is_floating_point() and not value.isfinite().all():
                    raise FloatingPointError(f"Expected finite weights to save, but {name!r} holds nan or inf")
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_whole(Path(path), content.getvalue())


def best_model(run_dir: Path, checkpoint: Path | None) -> TrainedModel:
    """Return the model of the best checkpoint that can be read."""
    # Without validation there is no best one, and without an epoch left after ``checkpoint`` no other one at all.
    *others, last = [path for path in (run_dir / BEST, run_dir / LAST, checkpoint) if path and path.exists()]
    for path in others:
        try:
            return TrainedModel.from_checkpoint(path)
        except ValueError as error:
            _LOG.warning("%s The next checkpoint is taken.", error)
    return TrainedModel.from_checkpoint(last)
