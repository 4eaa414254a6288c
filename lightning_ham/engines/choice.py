"""When to use compiled loops: their first use takes seconds on a machine, and at least one second in each process."""

from __future__ import annotations

import functools
import importlib.util
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ACCESSES_WORTH_COMPILING = 256
"""Fewest accesses, over all episodes of a batch, for which ``auto`` runs whole episodes in compiled loops."""

LEAVES_WORTH_COMPILING = 1 << 3
"""Fewest leaves of a tree for which ``auto`` makes single accesses in compiled loops."""

LEAVES_WORTH_COMPILING_FOR_FEW = 1 << 10
"""The same if fewer than ``ACCESSES_WORTH_COMPILING`` accesses are announced."""


_LOG = logging.getLogger(__name__)


class _Ahead(threading.local):
    """What a thread has announced."""

    makes_few = False
    """Whether it will make few accesses."""


_ahead = _Ahead()


@contextmanager
def accesses_ahead(count: int) -> Iterator[None]:
    """Announce ``count`` accesses: for few of them, loops are compiled only if the trees are large."""
    before = _ahead.makes_few
    _ahead.makes_few = count < ACCESSES_WORTH_COMPILING
    try:
        yield
    finally:
        _ahead.makes_few = before


def leaves_worth_compiling(leaves: int) -> int:
    """Return the fewest leaves for which ``auto`` compiles: ``leaves``, or more if few accesses are announced."""
    return max(leaves, LEAVES_WORTH_COMPILING_FOR_FEW) if _ahead.makes_few else leaves


def may_compile(engine: str) -> bool:
    """Return whether an engine uses compiled loops where it can."""
    return engine in ("auto", "fused")


@functools.cache
def has_numba() -> bool:
    """Return whether Numba is installed, which compiles the loops; warn if not, once in a process."""
    if importlib.util.find_spec("numba") is not None:
        return True
    _LOG.warning(
        "Numba is not installed: plain PyTorch computes the same numbers, and trains several times as long. To install "
        "it: pip install numba"
    )
    return False


def compiles(engine: str, size: int, worth: int, obstacle: str | None) -> bool:
    """Return whether to use compiled loops.

    Args:
        engine: Name of the engine.
        size: Size of the work.
        worth: Smallest size for which ``auto`` compiles.
        obstacle: Why compiled loops cannot do the work; None if they can.

    Raises:
        ValueError: If there is an obstacle and the engine is ``fused``.
    """
    if engine == "fused" and obstacle:
        raise ValueError(f"The engine 'fused' cannot run this: {obstacle}. Choose the engine 'auto'.")
    return obstacle is None and may_compile(engine) and (engine == "fused" or size >= worth)
