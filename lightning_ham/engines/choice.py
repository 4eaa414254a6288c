"""When to use compiled loops: their first use takes seconds on a machine, and at least one in each process."""

from __future__ import annotations

ACCESSES_WORTH_COMPILING = 256
"""Fewest accesses, over all episodes of a batch, for which ``auto`` runs whole episodes in compiled loops."""

LEAVES_WORTH_COMPILING = 1 << 10
"""Fewest leaves of a tree for which ``auto`` makes single accesses in compiled loops."""


def may_compile(engine: str) -> bool:
    """Return whether an engine uses compiled loops where it can."""
    return engine in ("auto", "fused")


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
    return may_compile(engine) and (engine == "fused" or size >= worth) and obstacle is None
