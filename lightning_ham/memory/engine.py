"""Names of the engines, which all compute the same numbers and gradients.

A memory only holds the name of its engine; :mod:`lightning_ham.engines` implements them.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from lightning_ham.arguments import expect_one_of
from lightning_ham.memory.attention import Access, Estimator
from lightning_ham.memory.tree import Tree

Engine = Literal["auto", "reference", "sparse", "fused"]
"""How episodes are run.

=============  =====================================================================================================
engine         what it is
=============  =====================================================================================================
``reference``  plain PyTorch, every tree a new tensor: the easiest to read; the others are tested against it
``sparse``     plain PyTorch on one tree that is changed in place: O(log n) an access, forward and backward, any device
``fused``      whole episodes in compiled loops, forward and backward: O(log n) an access, on the CPU
``auto``       ``fused`` where it works and the work is large enough to pay for compiling, else ``sparse``
=============  =====================================================================================================
"""


def check_engine(engine: str) -> None:
    """Raise a ValueError unless ``engine`` is an engine."""
    expect_one_of("engine", engine, get_args(Engine))


class Accelerator(Protocol):
    """Makes single accesses without gradients in place of plain PyTorch, if it can and the engine asks for it.

    The memory calls it before checking any argument; it declines arguments that may not fit.
    """

    def attend(
        self, memory: Any, tree: Tree, query: Tensor, estimator: Estimator, generator: torch.Generator | None
    ) -> Access | None:
        """Return what the memory's ``attend`` would return, or None to decline."""
        ...

    def write(self, memory: Any, access: Access, query: Tensor) -> bool:
        """Write in place as the memory's ``write`` would, and return True; return False to decline."""
        ...
