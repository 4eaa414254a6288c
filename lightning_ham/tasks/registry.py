"""Tasks by name: the built-in ones and those that other packages register."""

from collections.abc import Callable
from typing import Any

from lightning_ham.foreign import quoted
from lightning_ham.registry import PluginError, Registry
from lightning_ham.tasks.task import Task

_BUILT_IN: dict[str, Callable[[], Task[Any, Any]] | str] = {
    "reverse": "lightning_ham.tasks.reverse:Reverse",
    "search": "lightning_ham.tasks.search:Search",
    "merge": "lightning_ham.tasks.merge:Merge",
    "sort": "lightning_ham.tasks.sort:Sort",
    "add": "lightning_ham.tasks.add:Add",
    "stack": "lightning_ham.tasks.stack:Stack",
    "queue": "lightning_ham.tasks.fifo:Queue",
    "priority_queue": "lightning_ham.tasks.priority_queue:PriorityQueue",
}
"""The package's own tasks, in the order of the paper."""
_TASKS: Registry[Callable[[], Task[Any, Any]]] = Registry(
    "task",
    _BUILT_IN,
    group="lightning_ham.tasks",
    makes=Task,
)


def task_names() -> list[str]:
    """Return the names of all tasks, sorted, without importing those of other packages."""
    return _TASKS.names()


def built_in_tasks() -> list[Task[Any, Any]]:
    """Return the package's own tasks, in the order of the paper."""
    return [get_task(name) for name in _BUILT_IN]


def find_task(name: str) -> Task[Any, Any] | None:
    """Return the task of this name; None if it is not installed, as a record's task may be, or cannot be loaded."""
    try:
        return get_task(name) if name in _TASKS.names() else None
    except PluginError:
        return None


def get_task(name: str) -> Task[Any, Any]:
    """Return the task of this name.

    A package adds tasks by entry points of the group ``lightning_ham.tasks``. Each has its task's name
    and refers to a `Task` subclass or to a function without arguments that returns a task. It is imported at its
    first use::

        [project.entry-points."lightning_ham.tasks"]
        median = "my_package.tasks:Median"

    Raises:
        ValueError: If there is no such task.
        PluginError: If the entry point cannot be loaded, makes something other than a task, or one of another name.
    """
    task: Task[Any, Any] = _TASKS.make(name)
    if task.name != name:
        raise PluginError(
            f"Expected a task named {name!r}, as its entry point is, from {_TASKS.origin(name)}, but got "
            f"{quoted(task.name)}; rename one of the two"
        )
    return task
