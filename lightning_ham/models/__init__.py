"""Models: a controller together with its task, in torch only."""

from lightning_ham.models.online import OpenStructure
from lightning_ham.models.task_model import AnswerWarning, TaskModel, Trace, TraceStep

__all__ = ["AnswerWarning", "OpenStructure", "TaskModel", "Trace", "TraceStep"]
