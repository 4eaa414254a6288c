"""One access to the memory without gradients: attend, then write and re-join, in place.

Arrays are C-contiguous, of one float type; weight matrices are ``[out, in]``, as torch keeps them, so that nothing is
prepared for a single access. Symbols in shapes: ``B`` batch, ``n`` leaves, ``k`` levels, ``d`` leaf size, ``l`` query
size, ``s`` and ``j`` hidden units of SEARCH and JOIN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lightning_ham.engines.kernels.arithmetic import compared, compiled, on_grid, real_row, sigmoid

Array = np.ndarray[Any, Any]


class SearchWeights(NamedTuple):
    """SEARCH's parameters."""

    node: Array
    """``[s, d]``"""
    node_bias: Array
    query: Array
    """``[s, l]``"""
    out: Array
    """``[1, s]``"""
    out_bias: Array


class WriteWeights(NamedTuple):
    """The parameters of WRITE and JOIN."""

    leaf: Array
    """``[2 d, d]``"""
    leaf_bias: Array
    query: Array
    """``[2 d, l]``"""
    join_hidden: Array
    """``[j, 2 d + r]``: of both children, and of how their ``r`` reals compare"""
    join_hidden_bias: Array
    join_out: Array
    """``[3 d, j]`` for the gated JOIN, ``[d, j]`` for the paper's"""
    join_out_bias: Array
    steps: Any
    """Multiples of the grid in 1, a number of the arrays' type; 0 if nodes are not rounded."""


@compiled
def multiply(w, x, y):
    """Add ``w @ x`` to ``y``: a matrix and two vectors."""
    for o in range(w.shape[0]):
        total = y[o]
        for i in range(w.shape[1]):
            total += w[o, i] * x[i]
        y[o] = total


@compiled
def attend(nodes, query, noise, w, leaf_rows, logits, path, siblings):
    """Descend from the root to a leaf in every tree.

    Args:
        nodes: ``[B, 2 n, d]``, in heap order.
        query: ``[B, l]``.
        noise: Added to the logits, ``[B, k]``; or ``[B, 0]``, to go right iff the logit is positive.
        w: SEARCH's weights.
        leaf_rows: Gets the heap rows of the leaves, ``[B]``.
        logits: Gets SEARCH along the path, ``[B, k]``.
        path: Gets the nodes on it, ``[B, k + 1, d]``.
        siblings: Gets the nodes beside it, ``[B, k, d]``.
    """
    depth, size = logits.shape[1], nodes.shape[2]
    zero = nodes.dtype.type(0)
    of_query, hidden = np.empty_like(w.node_bias), np.empty_like(w.node_bias)
    for a in range(nodes.shape[0]):
        of_query[:] = w.node_bias
        multiply(w.query, query[a], of_query)
        row = 1
        for level in range(depth):
            hidden[:] = of_query
            multiply(w.node, nodes[a, row], hidden)
            logit = w.out_bias[0]
            for u in range(hidden.shape[0]):
                logit += w.out[0, u] * max(hidden[u], zero)
            logits[a, level] = logit
            if noise.shape[1]:
                logit += noise[a, level]
            for i in range(size):
                path[a, level, i] = nodes[a, row, i]
            row = 2 * row + (logit > zero)
            for i in range(size):
                siblings[a, level, i] = nodes[a, row ^ 1, i]
        for i in range(size):
            path[a, depth, i] = nodes[a, row, i]
        leaf_rows[a] = row


@compiled
def rejoin(nodes, leaf_rows, w):
    """Re-join the ancestors of the leaves at ``leaf_rows`` ``[B]``, in place; ``w`` as in :func:`write`."""
    size, joined = nodes.shape[2], w.join_out.shape[0]
    zero, one = nodes.dtype.type(0), nodes.dtype.type(1)
    two = one + one
    hidden = np.empty_like(w.join_hidden_bias)
    pair, out = np.empty(w.join_hidden.shape[1], nodes.dtype), np.empty(joined, nodes.dtype)
    reals = pair.shape[0] - 2 * size
    for a in range(nodes.shape[0]):
        row = leaf_rows[a]
        while row > 1:
            left = row - (row & 1)
            for i in range(size):
                pair[i] = nodes[a, left, i]
                pair[size + i] = nodes[a, left + 1, i]
            for i in range(reals):
                pair[2 * size + i] = compared(pair[i], pair[size + i])
            hidden[:] = w.join_hidden_bias
            multiply(w.join_hidden, pair, hidden)
            for u in range(hidden.shape[0]):
                hidden[u] = max(hidden[u], zero)
            out[:] = w.join_out_bias
            multiply(w.join_out, hidden, out)
            row //= 2
            for i in range(size):
                candidate = two * sigmoid(two * out[joined - size + i]) - one
                if joined == size:
                    nodes[a, row, i] = candidate
                else:
                    chosen = pair[i] + sigmoid(out[i]) * (pair[size + i] - pair[i])
                    nodes[a, row, i] = chosen + sigmoid(out[size + i]) * (candidate - chosen)
                nodes[a, row, i] = on_grid(nodes[a, row, i], w.steps)
            for i in range(reals):
                nodes[a, row, i] = pair[real_row(pair[i], pair[size + i], i, reals, size)]


@compiled
def write(nodes, leaf_rows, query, w):
    """Write to the attended leaves and re-join their ancestors, in place; arguments as in :func:`attend`."""
    size = nodes.shape[2]
    one = nodes.dtype.type(1)
    two = one + one
    gates = np.empty_like(w.leaf_bias)
    for a in range(nodes.shape[0]):
        row = leaf_rows[a]
        gates[:] = w.leaf_bias
        multiply(w.leaf, nodes[a, row], gates)
        multiply(w.query, query[a], gates)
        for i in range(size):
            value = two * sigmoid(two * gates[size + i]) - one
            nodes[a, row, i] += sigmoid(gates[i]) * (value - nodes[a, row, i])
        for i in range(w.join_hidden.shape[1] - 2 * size, size):
            nodes[a, row, i] = on_grid(nodes[a, row, i], w.steps)
    rejoin(nodes, leaf_rows, w)
