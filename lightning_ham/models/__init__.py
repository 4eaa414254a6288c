"""Controllers joined with tasks, in torch only."""

from lightning_ham.models.online import OpenStructure
from lightning_ham.models.task_model import TaskModel, Trace, TraceStep

__all__ = ["OpenStructure", "TaskModel", "Trace", "TraceStep"]
