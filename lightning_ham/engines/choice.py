"""When compiled loops are used: their first use on a machine takes seconds, in a process at least one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ACCESSES_WORTH_COMPILING = 256
"""Accesses, over all episodes of a batch, from which ``auto`` runs whole episodes in compiled loops."""

LEAVES_WORTH_COMPILING = 1 << 3
"""Leaves of a tree from which ``auto`` makes single accesses in compiled loops."""

LEAVES_WORTH_COMPILING_FOR_FEW = 1 << 10
"""The same where it is known that fewer than ``ACCESSES_WORTH_COMPILING`` accesses are made."""


class _Ahead(threading.local):
    """What a thread is doing."""

    makes_few = False
    """Whether it makes few accesses, and knows it."""


_ahead = _Ahead()


@contextmanager
def accesses_ahead(count: int) -> Iterator[None]:
    """Say that ``count`` accesses are made in this context: for a few, loops are compiled only if trees are large."""
    before = _ahead.makes_few
    _ahead.makes_few = count < ACCESSES_WORTH_COMPILING
    try:
        yield
    finally:
        _ahead.makes_few = before


def leaves_worth_compiling(leaves: int) -> int:
    """Return from which number of leaves ``auto`` compiles: ``leaves``, or more where few accesses are made."""
    return max(leaves, LEAVES_WORTH_COMPILING_FOR_FEW) if _ahead.makes_few else leaves


def may_compile(engine: str) -> bool:
    """Whether an engine uses compiled loops where it can."""
    return engine in ("auto", "fused")


def compiles(engine: str, size: int, worth: int, obstacle: str | None) -> bool:
    """Return whether compiled loops do the work.

    Args:
        engine: Name of the engine.
        size: Of the work.
        worth: Size from which ``auto`` compiles.
        obstacle: What keeps compiled loops from it, if anything.

    Raises:
        ValueError: If something does, and the engine is ``fused``.
    """
    if engine == "fused" and obstacle:
        raise ValueError(f"The engine 'fused' cannot run this: {obstacle}. Choose the engine 'auto'.")
    return may_compile(engine) and (engine == "fused" or size >= worth) and obstacle is None
