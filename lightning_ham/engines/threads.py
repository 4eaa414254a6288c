"""How many threads run compiled loops, and which episodes each of them takes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

LANES = 64
"""Episodes that a thread runs together: enough for products of some size, few enough to stay in its cache. Sums over
a batch are taken lane by lane and then block by block, so the number of threads does not change what comes out."""


def set_num_threads(threads: int, *, compiled: bool) -> None:
    """Have training and evaluation use ``threads`` CPU threads.

    PyTorch's own threads wait for their next work by spinning, and would take the cores from the compiled loops between
    two operations. So where most of the work is done by those (``compiled``), they get the threads, and PyTorch one.
    Then the number of threads changes no bit of a result; it does where PyTorch divides its products among several.
    """
    global _threads
    _threads = threads
    torch.set_num_threads(1 if compiled else threads)


def get_num_threads() -> int:
    """Return how many CPU threads training and evaluation use: as many as PyTorch, unless they were set."""
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
