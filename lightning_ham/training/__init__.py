"""Training with PyTorch Lightning: module, options, objective, data, callbacks, metrics."""

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
from lightning_ham.training.module import HAMModule
from lightning_ham.training.options import ExplorationOptions, ReinforceOptions, ScheduleOptions, SupervisionOptions

__all__ = [
    "BreakUpGuard",
    "EndIfNotFinite",
    "EpisodeCounter",
    "ExplorationOptions",
    "HAMModule",
    "LengthCurriculum",
    "MovingAverage",
    "ReinforceOptions",
    "ScheduleOptions",
    "SequenceErrors",
    "StopAtErrors",
    "SupervisionOptions",
    "TaskDataModule",
]
