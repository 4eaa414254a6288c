"""Which implementation does the work: all of them compute the same numbers and the same gradients."""

from __future__ import annotations

from typing import Literal, get_args

Engine = Literal["auto", "reference", "sparse", "fused"]
"""How episodes are run.

=============  =====================================================================================================
engine         what it is
=============  =====================================================================================================
``reference``  plain PyTorch, every tree a new tensor: the one to read, and the one that the others are held against
``sparse``     plain PyTorch on one tree that is changed in place: O(log n) an access, forward and backward, any device
``fused``      whole episodes in compiled loops, forward and backward: O(log n) an access, on the CPU
``auto``       ``fused`` where it can be used and the work is large enough to be worth it, else ``sparse``
=============  =====================================================================================================
"""


def check_engine(engine: str) -> None:
    """Raise a ValueError unless ``engine`` is an engine."""
    if engine not in get_args(Engine):
        raise ValueError(f"Expected argument `engine` to be one of {get_args(Engine)}, but got {engine!r}.")
