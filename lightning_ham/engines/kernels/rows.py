"""Rows of trees, one in each lane: taken out, put in, and side by side.

No views of rows in the loops over lanes: each would count references, which costs more than the row.
"""

from __future__ import annotations

import numpy as np

from lightning_ham.engines.kernels.arithmetic import compiled


@compiled
def gather(x, rows, out):
    """Set ``out`` ``[lanes, size]`` to what stands at ``rows`` ``[lanes]`` of ``x`` ``[lanes, count, size]``."""
    for a in range(out.shape[0]):
        row = rows[a]
        for i in range(out.shape[1]):
            out[a, i] = x[a, row, i]


@compiled
def scatter(values, rows, x):
    """Put ``values`` ``[lanes, size]`` at ``rows`` ``[lanes]`` of ``x`` ``[lanes, count, size]``."""
    for a in range(values.shape[0]):
        row = rows[a]
        for i in range(values.shape[1]):
            x[a, row, i] = values[a, i]


@compiled
def take(x, rows, out):
    """Like :func:`gather`, and leave zeros behind."""
    gather(x, rows, out)
    zero = x.dtype.type(0)
    for a in range(out.shape[0]):
        row = rows[a]
        for i in range(out.shape[1]):
            x[a, row, i] = zero


@compiled
def beside(left, right, x):
    """Put two matrices of as many rows side by side into ``x``, which may have columns between them."""
    after = x.shape[1] - right.shape[1]
    for a in range(x.shape[0]):
        for i in range(left.shape[1]):
            x[a, i] = left[a, i]
        for i in range(right.shape[1]):
            x[a, after + i] = right[a, i]


@compiled
def path_rows(leaf_rows, depth, rows):
    """Set ``rows`` ``[depth + 1, lanes]`` to the heap rows from the root to the leaves."""
    for level in range(depth + 1):
        for a in range(leaf_rows.shape[0]):
            rows[level, a] = leaf_rows[a] >> (depth - level)


@compiled
def scales(lanes, width, first, last, dtype):
    """Return the scales of :func:`activate` for ``width`` columns, of which ``first`` to ``last`` are for tanh."""
    scale = np.ones((lanes, width), dtype)
    scale[:, first:last] = dtype.type(2)
    return scale
