"""The package that module, data and callbacks are made for: ``pytorch_lightning`` or ``lightning.pytorch``.

Both hold the same classes, but as different objects: the Trainer of one refuses the modules of the other. The choice is
made once, when :mod:`lightning_ham.training` is imported:

1. the package that the variable ``LIGHTNING_HAM_NAMESPACE`` names, if it is set;
2. else the one that the program has imported before;
3. else, and if it has imported both, ``pytorch_lightning`` where it is installed.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

from lightning_ham.foreign import quoted

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
    from pytorch_lightning.callbacks import WeightAveraging

__all__ = ["Callback", "LightningDataModule", "LightningModule", "Trainer", "WeightAveraging"]

VARIABLE = "LIGHTNING_HAM_NAMESPACE"
NAMES = ("pytorch_lightning", "lightning.pytorch")


def choose() -> ModuleType:
    """Return the chosen package, imported.

    Raises:
        ValueError: If the variable names another package.
        ImportError: If the package that the variable names is not installed, or none is.
    """
    asked = os.environ.get(VARIABLE)
    if asked and asked not in NAMES:
        raise ValueError(f"Expected the variable {VARIABLE} to be one of {', '.join(NAMES)}, but got {quoted(asked)}.")
    candidates = [asked] if asked else sorted(NAMES, key=lambda name: not sys.modules.get(name))
    for name in candidates:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    raise ImportError(
        f"Expected {' or '.join(candidates)} to train with, but it is not installed: pip install "
        f"{candidates[0].partition('.')[0].replace('_', '-')}"
    )


def warn_of_other_lightning() -> None:
    """Warn if the program has imported the other package too, unless the variable settles which one it trains with."""
    (other,) = set(NAMES) - {NAME}
    if sys.modules.get(other) and not os.environ.get(VARIABLE):
        warnings.warn(
            f"lightning_ham was loaded for {NAME}, and this program has imported {other} too, whose Trainer refuses "
            f"modules and data of another package. To train with {other}.Trainer, import {other} before lightning_ham, "
            f"without {NAME}, or set the variable {VARIABLE}={other}.",
            stacklevel=1,  # points here, so that module and data together warn once
        )


_chosen = choose()
NAME = _chosen.__name__
"""Name of the chosen package."""
if not TYPE_CHECKING:
    Callback, Trainer = _chosen.Callback, _chosen.Trainer
    LightningModule, LightningDataModule = _chosen.LightningModule, _chosen.LightningDataModule
    WeightAveraging = importlib.import_module(f"{NAME}.callbacks").WeightAveraging
