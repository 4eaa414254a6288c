"""Estimators by name: the built-in ones and those that other packages register."""

from __future__ import annotations

import torch

from lightning_ham.arguments import expect_one_of
from lightning_ham.memory.attention.argmax import Argmax
from lightning_ham.memory.attention.estimator import Estimator
from lightning_ham.memory.attention.reinforce import Reinforce
from lightning_ham.memory.attention.soft import Soft
from lightning_ham.memory.attention.straight_through import StraightThrough
from lightning_ham.memory.attention.straight_through_write import StraightThroughWrite
from lightning_ham.registry import Registry

AttentionMode = str
"""The name of an estimator, see :func:`attention_modes`."""

_BUILT_IN: dict[str, type[Estimator]] = {
    "reinforce": Reinforce,
    "straight_through": StraightThrough,
    "straight_through_write": StraightThroughWrite,
    "soft": Soft,
    "argmax": Argmax,
}
_NAMES = tuple(_BUILT_IN)
_ESTIMATORS: Registry[type[Estimator]] = Registry(
    "estimator", _BUILT_IN, group="lightning_ham.estimators", base=Estimator
)
_MADE: dict[str, Estimator] = {}

GUIDED = Reinforce()
"""The estimator of guided accesses: its noise forces the branches to the given leaf."""


def attention_modes() -> list[str]:
    """Return the names of all estimators: the built-in ones first, then those of other packages in their order."""
    return [*_NAMES, *(name for name in _ESTIMATORS.names() if name not in _NAMES)]


def training_modes() -> list[str]:
    """Return the names of the estimators that may train.

    Other packages' estimators are not imported, so all of theirs are listed; :attr:`Estimator.trains` decides.
    """
    return [name for name in attention_modes() if name not in _NAMES or _BUILT_IN[name].trains]


def get_estimator(attention: str) -> Estimator:
    """Return the estimator called ``attention``.

    Raises:
        ValueError: If there is none.
        PluginError: If another package provides it and cannot be loaded.
    """
    if attention not in _NAMES:
        expect_one_of("attention", attention, attention_modes())
    if attention not in _MADE:
        if torch.compiler.is_compiling() and attention in _BUILT_IN:
            return _BUILT_IN[attention]()  # torch.compile cannot trace the search for those of other packages
        _MADE[attention] = _ESTIMATORS.make(attention)
    return _MADE[attention]
