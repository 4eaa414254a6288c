"""Gather, scatter and concatenate rows of trees, one per lane.

The loops over lanes use no views of rows: counting their references would cost more than the row.
"""

from __future__ import annotations

import numpy as np

from lightning_ham.engines.kernels.arithmetic import compiled


@compiled
def gather(x, rows, out):
    """Set ``out`` ``[lanes, size]`` to the rows ``rows`` ``[lanes]`` of ``x`` ``[lanes, count, size]``."""
    for a in range(out.shape[0]):
        row = rows[a]
        for i in range(out.shape[1]):
            out[a, i] = x[a, row, i]


@compiled
def scatter(values, rows, x):
    """Set the rows ``rows`` ``[lanes]`` of ``x`` ``[lanes, count, size]`` to ``values`` ``[lanes, size]``."""
    for a in range(values.shape[0]):
        row = rows[a]
        for i in range(values.shape[1]):
            x[a, row, i] = values[a, i]


@compiled
def take(x, rows, out):
    """Gather rows like :func:`gather`, then set them to zero."""
    gather(x, rows, out)
    zero = x.dtype.type(0)
    for a in range(out.shape[0]):
        row = rows[a]
        for i in range(out.shape[1]):
            x[a, row, i] = zero


@compiled
def beside(left, right, x):
    """Copy ``left`` to the first columns of ``x`` and ``right`` to its last ones; leave columns between unchanged."""
    after = x.shape[1] - right.shape[1]
    for a in range(x.shape[0]):
        for i in range(left.shape[1]):
            x[a, i] = left[a, i]
        for i in range(right.shape[1]):
            x[a, after + i] = right[a, i]


@compiled
def path_rows(leaf_rows, depth, rows):
    """Set ``rows`` ``[depth + 1, lanes]`` to the heap rows on the paths from the root to ``leaf_rows`` ``[lanes]``."""
    for level in range(depth + 1):
        for a in range(leaf_rows.shape[0]):
            rows[level, a] = leaf_rows[a] >> (depth - level)


@compiled
def scales(lanes, width, first, last, dtype):
    """Return ``scale`` for :func:`activate`, ``[lanes, width]``: tanh from column ``first`` to before ``last``."""
    scale = np.ones((lanes, width), dtype)
    scale[:, first:last] = dtype.type(2)
    return scale
