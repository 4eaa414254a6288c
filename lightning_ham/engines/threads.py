"""The number of threads that run compiled loops, and the episodes of each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

LANES = 64
"""Episodes that a thread runs together: enough for efficient products, few enough to stay in its cache. Sums over a
batch go lane by lane, then block by block, so the number of threads does not change the result."""


def set_num_threads(threads: int, *, compiled: bool) -> None:
    """Have training and evaluation use ``threads`` CPU threads.

    PyTorch's idle threads spin, and would take cores from the compiled loops. So if compiled loops do most of the work
    (``compiled``), they get all threads and PyTorch gets one. Then the number of threads changes no bit of a result;
    it may when PyTorch divides its products among several.
    """
    global _threads
    _threads = threads
    torch.set_num_threads(1 if compiled else threads)


def get_num_threads() -> int:
    """Return how many CPU threads training and evaluation use: as many as PyTorch by default."""
    return _threads or torch.get_num_threads()


_threads: int | None = None


def for_blocks(batch: int, run: Callable[[int, int, int], None]) -> None:
    """Call ``run(block, first, last)`` for every block of lanes."""
    blocks = [(block, first, min(first + LANES, batch)) for block, first in enumerate(range(0, batch, LANES))]
    threads = min(get_num_threads(), len(blocks))
    if threads <= 1:
        for block in blocks:
            run(*block)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda block: run(*block), blocks))
