"""The problems that a memory is trained on: samplers, oracles, and the encoding of values as bits."""

from lightning_ham.tasks.checks import InstanceError
from lightning_ham.tasks.csv_form import CsvForm
from lightning_ham.tasks.episode import Episodes, capacity_for
from lightning_ham.tasks.lengths import Lengths
from lightning_ham.tasks.registry import built_in_tasks, find_task, get_task, task_names
from lightning_ham.tasks.task import CellLabel, Task

__all__ = [
    "CellLabel",
    "CsvForm",
    "Episodes",
    "InstanceError",
    "Lengths",
    "Task",
    "built_in_tasks",
    "capacity_for",
    "find_task",
    "get_task",
    "task_names",
]
