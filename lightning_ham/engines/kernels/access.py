"""One access to the memory without gradients: attend, then write and re-join, in place.

Arrays are C-contiguous, of one float type; weight matrices are ``[out, in]``, as in torch, so that a single
access prepares nothing. :func:`attend_at` and :func:`write_at` do the same as :func:`attend` and :func:`write` with
addresses of tensors.

Symbols in shapes: ``B`` batch, ``n`` leaves, ``k`` levels, ``d`` leaf size, ``l`` query size, ``s`` and ``j`` hidden
units of SEARCH and JOIN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lightning_ham.engines.kernels.addresses import array_at
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
    """``[j, 2 d + r]``: from both children and the differences of their ``r`` reals"""
    join_hidden_bias: Array
    join_out: Array
    """``[3 d, j]`` for the gated JOIN, ``[d, j]`` for the paper's"""
    join_out_bias: Array
    steps: Any
    """``1 / grid`` in the arrays' type; 0 if nodes are not rounded."""


@compiled
def multiply(w, x, y):
    """Add ``w @ x`` to ``y``, for a matrix and two vectors.

    It takes four rows of ``w`` at a time, which share every load from ``x``.
    """
    rows, columns = w.shape
    rows4 = rows - rows % 4
    for o in range(0, rows4, 4):
        w0, w1, w2, w3 = w[o], w[o + 1], w[o + 2], w[o + 3]
        y0, y1, y2, y3 = y[o], y[o + 1], y[o + 2], y[o + 3]
        for i in range(columns):
            y0 += w0[i] * x[i]
            y1 += w1[i] * x[i]
            y2 += w2[i] * x[i]
            y3 += w3[i] * x[i]
        y[o], y[o + 1], y[o + 2], y[o + 3] = y0, y1, y2, y3
    for o in range(rows4, rows):
        total = y[o]
        for i in range(columns):
            total += w[o, i] * x[i]
        y[o] = total


@compiled
def attend(nodes, query, noise, w, leaf_rows, logits, path, siblings):
    """Descend from the root to a leaf in every tree.

    Args:
        nodes: ``[B, 2 n, d]``, in heap order.
        query: ``[B, l]``.
        noise: Added to the logits, ``[B, k]``; ``[B, 0]`` for none.
        w: SEARCH's weights.
        leaf_rows: Set to the heap rows of the leaves, ``[B]``.
        logits: Set to the logits along the path, ``[B, k]``.
        path: Set to the nodes on it, ``[B, k + 1, d]``.
        siblings: Set to their siblings, ``[B, k, d]``.
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
    """Re-join the ancestors of the leaves at ``leaf_rows`` ``[B]``, in place; ``w``: :class:`WriteWeights`."""
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
    """Write to the leaves at ``leaf_rows`` ``[B]`` and re-join their ancestors, in place.

    ``w``: :class:`WriteWeights`; ``nodes`` and ``query`` as in :func:`attend`.
    """
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


@compiled
def attend_at(nodes, query, noise, w, leaves, logits, path, siblings):
    """Do the same as :func:`attend`, given addresses.

    Args:
        nodes: Address of the nodes.
        query: Address of the queries.
        noise: Address of the noise, ``[B, k]``; 0 for none.
        w: Addresses of SEARCH's weights in the order of :class:`SearchWeights`, then ``s`` and ``l``.
        leaves: Set to the indices of the leaves, ``[B]``.
        logits: As for :func:`attend`.
        path: As for :func:`attend`.
        siblings: As for :func:`attend`.
    """
    batch, depth, size = siblings.shape
    units, query_size = w[5], w[6]
    weights = SearchWeights(
        array_at(w[0], (units, size), path),
        array_at(w[1], (units,), path),
        array_at(w[2], (units, query_size), path),
        array_at(w[3], (1, units), path),
        array_at(w[4], (1,), path),
    )
    trees, queries = array_at(nodes, (batch, 2 << depth, size), path), array_at(query, (batch, query_size), path)
    noises = array_at(noise, (batch, depth if noise else 0), path)
    attend(trees, queries, noises, weights, leaves, logits, path, siblings)
    for a in range(batch):
        leaves[a] -= 1 << depth


@compiled
def write_at(nodes, batch, depth, leaf, query, w, like):
    """Do the same as :func:`write` and return True; do nothing and return False if a leaf is outside its tree.

    Args:
        nodes: Address of the nodes.
        batch: ``B``
        depth: ``k``
        leaf: Address of the indices of the leaves, ``[B]``, int64.
        query: Address of the queries.
        w: Addresses of the weights in the order of :class:`WriteWeights`, then ``d``, ``l``, ``j``, ``2 d + r``,
            the number of outputs of JOIN's output layer, and ``1 / grid`` (0 for none).
        like: An array of the type of the nodes.
    """
    size, query_size, units, seen, joined = w[7], w[8], w[9], w[10], w[11]
    leaf_rows = np.empty(batch, np.int64)
    leaf_rows[:] = array_at(leaf, (batch,), leaf_rows)
    for a in range(batch):
        if leaf_rows[a] < 0 or leaf_rows[a] >= 1 << depth:
            return False
        leaf_rows[a] += 1 << depth
    weights = WriteWeights(
        array_at(w[0], (2 * size, size), like),
        array_at(w[1], (2 * size,), like),
        array_at(w[2], (2 * size, query_size), like),
        array_at(w[3], (units, seen), like),
        array_at(w[4], (units,), like),
        array_at(w[5], (joined, units), like),
        array_at(w[6], (joined,), like),
        like.dtype.type(w[12]),
    )
    trees, queries = array_at(nodes, (batch, 2 << depth, size), like), array_at(query, (batch, query_size), like)
    write(trees, leaf_rows, queries, weights)
    return True


@compiled
def repeat_side(weight, bias, sharpness, out, out_bias):
    """Set the output layer of a gated JOIN to the equivalent of that of ``ChoiceJoin``, with one side for all.

    Args:
        weight: ``[1 + 2 d, j]``: side, then new and candidate of every dimension.
        bias: ``[1 + 2 d]``
        sharpness: Factor of side, an array of one number.
        out: Set to the weights of the gated JOIN, ``[3 d, j]``.
        out_bias: Set to its bias, ``[3 d]``.
    """
    size = out.shape[0] - weight.shape[0] + 1
    for o in range(out.shape[0]):
        row = max(o - size + 1, 0)
        factor = sharpness[0] if row == 0 else weight.dtype.type(1)
        for u in range(out.shape[1]):
            out[o, u] = factor * weight[row, u]
        out_bias[o] = factor * bias[row]
