"""The problems that a memory is trained on: samplers, oracles, and the code between values and bits."""

from lightning_ham.tasks.checks import InstanceError
from lightning_ham.tasks.episode import Episodes, capacity_for
from lightning_ham.tasks.lengths import Lengths
from lightning_ham.tasks.registry import get_task, task_names
from lightning_ham.tasks.task import CellLabel, Task

__all__ = ["CellLabel", "Episodes", "InstanceError", "Lengths", "Task", "capacity_for", "get_task", "task_names"]
