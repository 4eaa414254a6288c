"""Training with PyTorch Lightning: module, data, callbacks, metrics, losses."""

from lightning_ham.evaluation.metrics import SequenceErrors
from lightning_ham.training.callbacks import (
    EndIfNotFinite,
    EpisodeCounter,
    LengthCurriculum,
    MovingAverage,
    StopAtErrors,
)
from lightning_ham.training.datamodule import TaskDataModule
from lightning_ham.training.guard import BreakUpGuard
from lightning_ham.training.module import HAMModule, ReinforceOptions

__all__ = [
    "BreakUpGuard",
    "EndIfNotFinite",
    "EpisodeCounter",
    "HAMModule",
    "LengthCurriculum",
    "MovingAverage",
    "ReinforceOptions",
    "SequenceErrors",
    "StopAtErrors",
    "TaskDataModule",
]
