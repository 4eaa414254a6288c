"""Hierarchical Attentive Memory networks for PyTorch Lightning: train, inspect, use and publish them.

Importing the package is fast: the public names below import what they need at their first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_ham.engines import HierarchicalAttentiveMemory
    from lightning_ham.hub import from_pretrained, list_pretrained
    from lightning_ham.runs.learning_curve import learning_curve
    from lightning_ham.training import HAMModule, TaskDataModule

__version__ = "0.1.0"

__all__ = [
    "HAMModule",
    "HierarchicalAttentiveMemory",
    "TaskDataModule",
    "__version__",
    "from_pretrained",
    "learning_curve",
    "list_pretrained",
]

_HOMES = {
    "HAMModule": "lightning_ham.training",
    "HierarchicalAttentiveMemory": "lightning_ham.engines",
    "TaskDataModule": "lightning_ham.training",
    "from_pretrained": "lightning_ham.hub",
    "learning_curve": "lightning_ham.runs.learning_curve",
    "list_pretrained": "lightning_ham.hub",
}

# Hidden from type checkers, which would accept any name of a module with `__getattr__`.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
