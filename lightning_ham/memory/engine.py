"""Which implementation does the work: all of them compute the same numbers and the same gradients.

A memory holds no more than the name of its engine; :mod:`lightning_ham.engines` knows what that means.
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
``reference``  plain PyTorch, every tree a new tensor: the one to read, and the one that the others are held against
``sparse``     plain PyTorch on one tree that is changed in place: O(log n) an access, forward and backward, any device
``fused``      whole episodes in compiled loops, forward and backward: O(log n) an access, on the CPU
``auto``       ``fused`` where it can be used and the work is large enough to be worth it, else ``sparse``
=============  =====================================================================================================
"""


def check_engine(engine: str) -> None:
    """Raise a ValueError unless ``engine`` is an engine."""
    expect_one_of("engine", engine, get_args(Engine))


class Accelerator(Protocol):
    """Makes single accesses without gradients in the place of plain PyTorch, where it can and the engine asks for it.

    It is asked before any argument is checked, and declines all that it does not know to fit.
    """

    def attend(
        self, memory: Any, tree: Tree, query: Tensor, estimator: Estimator, generator: torch.Generator | None
    ) -> Access | None:
        """Return what the memory's ``attend`` would; None to have it do it itself."""
        ...

    def write(self, memory: Any, access: Access, query: Tensor) -> bool:
        """Write in place as the memory's ``write`` would, and return True; False to have it do it itself."""
        ...
