"""When compiled loops are used: their first use on a machine takes seconds, in a process at least one."""

from __future__ import annotations

ACCESSES_WORTH_COMPILING = 256
"""Accesses, over all episodes of a batch, from which ``auto`` runs whole episodes in compiled loops."""

LEAVES_WORTH_COMPILING = 1 << 10
"""Leaves of a tree from which ``auto`` makes single accesses in compiled loops."""


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
