"""Engines run episodes: in plain PyTorch, on a tree that is changed in place, or in compiled loops.

Importing this lets :class:`lightning_ham.memory.HierarchicalAttentiveMemory` make single accesses in compiled loops.
"""

from lightning_ham.engines.choice import has_numba, may_compile
from lightning_ham.engines.episodes import Unrolled, unroll
from lightning_ham.engines.first_use import compile_seconds
from lightning_ham.engines.single import CompiledAccesses
from lightning_ham.engines.threads import get_num_threads, set_num_threads
from lightning_ham.memory import HierarchicalAttentiveMemory

__all__ = [
    "HierarchicalAttentiveMemory",
    "Unrolled",
    "compile_seconds",
    "get_num_threads",
    "has_numba",
    "may_compile",
    "set_num_threads",
    "unroll",
]

HierarchicalAttentiveMemory.accelerator = CompiledAccesses()
