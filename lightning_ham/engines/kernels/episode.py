"""Whole episodes of a cell and its memory, forward and backward, for a few lanes (episodes of a batch) at a time.

The mathematics is that of :mod:`lightning_ham.memory` and :mod:`lightning_ham.engines.episodes`; the derivatives are
written out. Trees are changed in place: forward keeps what an access overwrote, and backward puts it back, so that no
access costs more than its path. Beside every inner node stands its *key*, the part of SEARCH's hidden layer that
depends on the node alone: it is computed when the node is, and a visit then costs no product.

Arrays are C-contiguous, of one float type; weight matrices are ``[in, out]``. Symbols in shapes: ``T`` accesses, ``B``
batch, ``n`` leaves, ``k`` levels of decisions, ``d`` leaf size, ``l`` controller size, ``s`` and ``j`` hidden units of
SEARCH and JOIN, ``r`` reals of a node.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lightning_ham.engines.kernels.arithmetic import (
    accumulate,
    activate,
    add_column_sums,
    affine,
    compared,
    compiled,
    real_row,
    sigmoid,
    tanh_of,
)
from lightning_ham.engines.kernels.workspace import Workspace
from lightning_ham.memory.constants import COARSEST_DIFFERENCE

Array = np.ndarray[Any, Any]


class Weights(NamedTuple):
    """The parameters as the kernels want them; also their gradients, with one dimension more in front."""

    join_hidden: Any
    """``[2 d + r, j]``: of both children, and of how their ``r`` reals compare"""
    join_hidden_bias: Any
    join_out: Any
    """``[j, 3 d]`` for the gated JOIN (side, new, candidate), ``[j, d]`` for the paper's"""
    join_out_bias: Any
    search_node: Any
    """``[d, s]``"""
    search_node_bias: Any
    search_query: Any
    """``[l, s]``"""
    search_out: Any
    """``[s]``"""
    search_out_bias: Any
    """``[1]``"""
    write: Any
    """``[d + l, 2 d]``: of the leaf and the query, to gate and value"""
    write_bias: Any
    cell: Any
    """``[input + l, 4 l]``: of the input and the state, to the gates i, f, g, o; ``[l, 0]`` where there is none"""
    cell_bias: Any


class Options(NamedTuple):
    """What kind of episode it is."""

    gated: bool
    """Whether JOIN is the gated one."""
    sampled: bool
    """Whether branches are sampled (else: right iff the logit is positive)."""
    counterfactual: bool
    """Whether siblings not taken are descended from too, for straight-through."""
    through_write: bool
    """Whether the gradient reaches the branches through the place of the write too; only with ``counterfactual``."""
    given: bool
    """Whether the queries of all accesses are given, instead of being a cell's states."""
    place_share: float
    """Share of the gradient of a write's place that goes on to the nodes which SEARCH saw."""
    query_share: float
    """Share of the gradients of SEARCH and WRITE that goes on to the queries."""
    keep: bool
    """Whether a backward will follow."""


class Record(NamedTuple):
    """What forward leaves; without ``keep``, only the first group is whole, the rest has room for one access."""

    hidden: Array
    """``[T + 1, B, l]``: the cell's state before each access, and at the end; the queries, where they are given"""
    reads: Array
    """``[T, B, d]``"""
    logits: Array
    """``[T, B, k]``"""
    leaves: Array
    """``[T, B]``, counted from 0"""
    nodes: Array
    """``[B, 2 n, d]``: leaves go in, the tree as it ends comes out"""
    keys: Array
    """``[B, n, s]``"""

    memory: Array
    """``[T + 1, B, l]``: the LSTM's other state"""
    queries: Array
    """``[T, B, s]``: the part of SEARCH's hidden layer that depends on the state alone"""
    other_leaves: Array
    """``[T, B, k]``: heap rows of the counterfactual leaves"""
    cell_gates: Array
    """``[T, B, 4 l]``, after their activations, like all gates here"""
    write_gates: Array
    """``[T, B, 2 d]``"""
    old_nodes: Array
    """``[T, k + 1, B, d]``: the path before the write, from the root"""
    old_keys: Array
    """``[T, k, B, s]``"""
    join_hidden: Array
    """``[T, k, B, j]``"""
    join_gates: Array
    """``[T, k, B, 3 d or d]``"""
    build_hidden: Array
    """``[n, B, j]``: of the JOINs that built the tree, by heap row"""
    build_gates: Array
    """``[n, B, 3 d or d]``"""


def empty_record(leaves: Array, accesses: int, w: Weights, *, keep: bool) -> tuple[Record, Workspace]:
    """Return what :func:`forward` needs for ``leaves`` ``[B, n, d]``, and the memory that most of it lies in."""
    batch, num_leaves, size = leaves.shape
    depth = num_leaves.bit_length() - 1
    controller, units = w.search_query.shape
    joins, gates = w.join_out.shape
    steps, states, rows = (accesses, accesses + 1, num_leaves) if keep else (1, 2, 1)
    shapes = {
        "nodes": (batch, 2 * num_leaves, size),
        "keys": (batch, num_leaves, units),
        "memory": (states, batch, controller),
        "queries": (steps, batch, units),
        "cell_gates": (steps, batch, w.cell.shape[1]),
        "write_gates": (steps, batch, 2 * size),
        "old_nodes": (steps, depth + 1, batch, size),
        "old_keys": (steps, depth, batch, units),
        "join_hidden": (steps, depth, batch, joins),
        "join_gates": (steps, depth, batch, gates),
        "build_hidden": (rows, batch, joins),
        "build_gates": (rows, batch, gates),
    }
    workspace = Workspace(sum(map(math.prod, shapes.values())), leaves.dtype)
    record = Record(
        hidden=np.empty((accesses + 1, batch, controller), leaves.dtype),
        reads=np.empty((accesses, batch, size), leaves.dtype),
        logits=np.empty((accesses, batch, depth), leaves.dtype),
        leaves=np.empty((accesses, batch), np.int64),
        other_leaves=np.empty((steps, batch, depth), np.int64),
        **{name: workspace.take(shape) for name, shape in shapes.items()},
    )
    record.hidden[0] = 0
    record.memory[0] = 0
    record.nodes[:, num_leaves:] = leaves
    return record, workspace


# No views of rows in the loops over lanes: each would count references, which costs more than the row.


@compiled
def _gather(x, rows, out):
    """Set ``out`` ``[lanes, size]`` to what stands at ``rows`` ``[lanes]`` of ``x`` ``[lanes, count, size]``."""
    for a in range(out.shape[0]):
        row = rows[a]
        for i in range(out.shape[1]):
            out[a, i] = x[a, row, i]


@compiled
def _scatter(values, rows, x):
    """Put ``values`` ``[lanes, size]`` at ``rows`` ``[lanes]`` of ``x`` ``[lanes, count, size]``."""
    for a in range(values.shape[0]):
        row = rows[a]
        for i in range(values.shape[1]):
            x[a, row, i] = values[a, i]


@compiled
def _take(x, rows, out):
    """Like :func:`_gather`, and leave zeros behind."""
    _gather(x, rows, out)
    zero = x.dtype.type(0)
    for a in range(out.shape[0]):
        row = rows[a]
        for i in range(out.shape[1]):
            x[a, row, i] = zero


@compiled
def _beside(left, right, x):
    """Put two matrices of as many rows side by side into ``x``, which may have columns between them."""
    after = x.shape[1] - right.shape[1]
    for a in range(x.shape[0]):
        for i in range(left.shape[1]):
            x[a, i] = left[a, i]
        for i in range(right.shape[1]):
            x[a, after + i] = right[a, i]


@compiled
def _compare(x, size):
    """Set what stands in ``x`` behind two children of ``size`` numbers: how their first numbers compare."""
    for a in range(x.shape[0]):
        for i in range(2 * size, x.shape[1]):
            x[a, i] = compared(x[a, i - 2 * size], x[a, i - size])


@compiled
def _compare_backward(x, size, dx):
    """Add to the gradients of two children, in ``dx``, what comes from their comparison."""
    half, coarsest = x.dtype.type(0.5), x.dtype.type(COARSEST_DIFFERENCE)
    for a in range(x.shape[0]):
        for i in range(2 * size, x.shape[1]):
            left, right = i - 2 * size, i - size
            difference = x[a, left] - x[a, right]
            slope = half * dx[a, i] / math.sqrt(difference * difference + coarsest * coarsest)
            dx[a, left] += slope
            dx[a, right] -= slope


@compiled
def _pair(own, nodes, rows, x):
    """Put ``own`` ``[lanes, d]``, which stands at ``rows``, and its sibling into ``x`` as a JOIN sees children."""
    size = own.shape[1]
    for a in range(own.shape[0]):
        sibling = rows[a] ^ 1
        at, beside = (size, 0) if rows[a] & 1 else (0, size)
        for i in range(size):
            x[a, at + i] = own[a, i]
            x[a, beside + i] = nodes[a, sibling, i]
    _compare(x, size)


@compiled
def _pair_backward(dx, rows, down, dnodes):
    """Add the gradient of a pair to that of the node at ``rows``, in ``down``, and of its sibling, in ``dnodes``."""
    size = down.shape[1]
    for a in range(down.shape[0]):
        sibling = rows[a] ^ 1
        at, beside = (size, 0) if rows[a] & 1 else (0, size)
        for i in range(size):
            down[a, i] += dx[a, at + i]
            dnodes[a, sibling, i] += dx[a, beside + i]


@compiled
def _scales(lanes, width, first, last, dtype):
    """Return the scales of :func:`activate` for ``width`` columns, of which ``first`` to ``last`` are for tanh."""
    scale = np.ones((lanes, width), dtype)
    scale[:, first:last] = dtype.type(2)
    return scale


@compiled
def _join(x, w, gated, scale, hidden, gates, out):
    """Join ``x`` ``[lanes, 2 d + r]``, both children and how their ``r`` reals compare, into ``out`` ``[lanes, d]``."""
    lanes, size = out.shape
    reals = x.shape[1] - 2 * size
    zero = out.dtype.type(0)
    affine(x, w.join_hidden, w.join_hidden_bias, hidden)
    for a in range(lanes):
        for u in range(hidden.shape[1]):
            hidden[a, u] = max(hidden[a, u], zero)
    affine(hidden, w.join_out, w.join_out_bias, gates)
    activate(gates, scale)
    if gated:
        for a in range(lanes):
            for i in range(size):
                chosen = x[a, i] + gates[a, i] * (x[a, size + i] - x[a, i])
                out[a, i] = chosen + gates[a, size + i] * (gates[a, 2 * size + i] - chosen)
    else:
        out[:] = gates
    for a in range(lanes):
        for i in range(reals):
            out[a, i] = x[a, real_row(x[a, i], x[a, size + i], i, reals, size)]


@compiled
def _join_input_backward(x, hidden, gates, grad, w_t, gated, dx, dgates, dhidden):
    """Set ``dx`` ``[lanes, 2 d + r]`` to the gradient of a JOIN's children, given that of its parent.

    ``dgates`` and ``dhidden``, shaped as ``gates`` and ``hidden``, become the gradients before the activations.
    """
    lanes, size = grad.shape
    reals = x.shape[1] - 2 * size
    zero, one = grad.dtype.type(0), grad.dtype.type(1)
    if gated:
        for a in range(lanes):
            for i in range(2 * size, x.shape[1]):
                dx[a, i] = zero
            for i in range(size):
                side, new, candidate = gates[a, i], gates[a, size + i], gates[a, 2 * size + i]
                difference = x[a, size + i] - x[a, i]
                chosen = x[a, i] + side * difference
                dchosen = grad[a, i] * (one - new)
                dx[a, i] = dchosen * (one - side)
                dx[a, size + i] = dchosen * side
                dgates[a, i] = dchosen * difference * side * (one - side)
                dgates[a, size + i] = grad[a, i] * (candidate - chosen) * new * (one - new)
                dgates[a, 2 * size + i] = grad[a, i] * new * (one - candidate * candidate)
    else:
        dx[:] = zero
        for a in range(lanes):
            for i in range(size):
                dgates[a, i] = grad[a, i] * (one - gates[a, i] * gates[a, i])
    for a in range(lanes):
        for i in range(reals):
            dx[a, i] = dx[a, size + i] = zero
            dx[a, real_row(x[a, i], x[a, size + i], i, reals, size)] = grad[a, i]
            for k in range(0, dgates.shape[1], size):
                dgates[a, k + i] = zero
    dhidden[:] = zero
    accumulate(dgates, w_t.join_out, dhidden)
    for a in range(lanes):
        for u in range(hidden.shape[1]):
            dhidden[a, u] = dhidden[a, u] if hidden[a, u] > zero else zero
    accumulate(dhidden, w_t.join_hidden, dx)
    _compare_backward(x, size, dx)


@compiled
def _join_backward(x, hidden, gates, grad, w_t, gated, w_grad, block, dx, dgates, dhidden):
    """Do the same, and add to the weights' gradients."""
    _join_input_backward(x, hidden, gates, grad, w_t, gated, dx, dgates, dhidden)
    accumulate(hidden.T, dgates, w_grad.join_out[block])
    add_column_sums(dgates, w_grad.join_out_bias[block])
    accumulate(x.T, dhidden, w_grad.join_hidden[block])
    add_column_sums(dhidden, w_grad.join_hidden_bias[block])


@compiled
def _children(nodes, row, x):
    """Put both children of ``row`` in every lane's tree into ``x``, as a JOIN sees them."""
    size = nodes.shape[2]
    for a in range(nodes.shape[0]):
        for i in range(size):
            x[a, i] = nodes[a, 2 * row, i]
            x[a, size + i] = nodes[a, 2 * row + 1, i]
    _compare(x, size)


@compiled
def _build(first, last, w, options, scale, record, x, out, key):
    """Join the leaves of the lanes ``first`` to ``last`` bottom-up; ``x``, ``out`` and ``key`` are scratch."""
    nodes, keys = record.nodes[first:last], record.keys[first:last]
    rows = np.empty(last - first, np.int64)
    for row in range(keys.shape[1] - 1, 0, -1):
        kept = row if options.keep else 0
        _children(nodes, row, x)
        hidden_units, gates = record.build_hidden[kept, first:last], record.build_gates[kept, first:last]
        _join(x, w, options.gated, scale, hidden_units, gates, out)
        affine(out, w.search_node, w.search_node_bias, key)
        rows[:] = row
        _scatter(out, rows, nodes)
        _scatter(key, rows, keys)


@compiled
def _logit(key, query, w):
    """SEARCH at one node, given its key and the query's part, both ``[s]``."""
    total, zero = w.search_out_bias[0], key.dtype.type(0)
    for u in range(key.shape[0]):
        total += w.search_out[u] * max(key[u] + query[u], zero)
    return total


@compiled
def _search_backward(path_keys, rows, query, grad, place, share, through_write, w, dout, dkeys, dquery, dplace):
    """Add the gradients of SEARCH's output weights, of the keys at ``rows`` and of the query's part.

    Args:
        path_keys: The keys at ``rows``, ``[lanes, s]``.
        rows: ``[lanes]``.
        query: The query's part, ``[lanes, s]``.
        grad: Gradient of the logits, ``[lanes]``.
        place: More of it, from the place of the write, ``[lanes]``; zeros unless ``through_write``.
        share: How much of ``place`` goes on to the keys.
        through_write: As in :class:`Options`.
        w: Weights.
        dout: Gradient of SEARCH's output weights, ``[s]``.
        dkeys: Gradient of all keys, ``[lanes, n, s]``.
        dquery: As ``query``.
        dplace: What does not go on, ``[lanes, s]``; it is set if ``through_write``.
    """
    zero, one = query.dtype.type(0), query.dtype.type(1)
    lanes, units = query.shape
    for a in range(lanes):
        row, g = rows[a], grad[a]
        both = g + place[a]
        for u in range(units):
            dout[u] += both * max(path_keys[a, u] + query[a, u], zero)
        for u in range(units):
            dquery[a, u] += both * w.search_out[u] if path_keys[a, u] + query[a, u] > zero else zero
        for u in range(units):
            dkeys[a, row, u] += (
                (g + share * place[a]) * w.search_out[u] if path_keys[a, u] + query[a, u] > zero else zero
            )
    if through_write:
        for a in range(lanes):
            left = (one - share) * place[a]
            for u in range(units):
                dplace[a, u] = left * w.search_out[u] if path_keys[a, u] + query[a, u] > zero else zero


@compiled
def _branch_gradients(
    first, t, level, depth, leaf_rows, nodes, dread, worth, dlogits, options, noise, record, grad, place
):
    """Set the gradient of SEARCH at one level.

    ``grad`` ``[lanes]`` is its own, and straight-through from the read; ``place`` ``[lanes]`` what comes from ``worth``
    ``[depth + 1, lanes]``, the loss that a write adds at the attended leaf and at each counterfactual one.
    """
    zero, one = dread.dtype.type(0), dread.dtype.type(1)
    for a in range(grad.shape[0]):
        lane = first + a
        grad[a] = dlogits[t, lane, level]
        place[a] = zero
        if options.counterfactual:
            other, leaf = record.other_leaves[t, lane, level], leaf_rows[a]
            along = zero
            for i in range(dread.shape[1]):
                along += dread[a, i] * (nodes[a, leaf, i] - nodes[a, other, i])
            p = sigmoid(record.logits[t, lane, level] + noise[t, lane, level * (level + 1) // 2])
            slope = p * (one - p)
            if not (leaf >> (depth - 1 - level)) & 1:
                slope = -slope
            grad[a] += along * slope
            if options.through_write:
                place[a] = (worth[0, a] - worth[1 + level, a]) * slope


@compiled
def _descend(keys, query, w, options, noise, depth, logits, rows):
    """Descend in one lane; ``rows`` ``[depth + 1]`` gets the leaf's heap row, then the counterfactual leaves'."""
    rows[0] = 1
    drawn, width = 0, 1
    for level in range(depth):
        for column in range(width):
            logit = _logit(keys[rows[column]], query, w)
            if column == 0:
                logits[level] = logit
            if options.sampled:
                logit += noise[drawn]
                drawn += 1
            rows[column] = 2 * rows[column] + (logit > 0)
        if options.counterfactual:
            rows[width] = rows[0] ^ 1
            width += 1


@compiled
def _step_cell(gates, scale, before, after, hidden):
    """An LSTM's step, given its gates before their activations ``[lanes, 4 l]``; they are activated in place."""
    size = before.shape[1]
    activate(gates, scale)
    for a in range(before.shape[0]):
        for i in range(size):
            after[a, i] = gates[a, size + i] * before[a, i] + gates[a, i] * gates[a, 2 * size + i]
    tanh_of(after, hidden)
    for a in range(before.shape[0]):
        for i in range(size):
            hidden[a, i] *= gates[a, 3 * size + i]


@compiled
def _step_cell_backward(gates, before, after, dhidden, dmemory, dgates, squashed):
    """Set ``dgates`` (before the activations), and turn ``dmemory`` from the gradient of ``after`` to ``before``'s.

    ``squashed`` is scratch, shaped as ``after``.
    """
    size, one = before.shape[1], before.dtype.type(1)
    tanh_of(after, squashed)
    for a in range(before.shape[0]):
        for i in range(size):
            come, stay, new, go = gates[a, i], gates[a, size + i], gates[a, 2 * size + i], gates[a, 3 * size + i]
            dafter = dmemory[a, i] + dhidden[a, i] * go * (one - squashed[a, i] * squashed[a, i])
            dgates[a, i] = dafter * new * come * (one - come)
            dgates[a, size + i] = dafter * before[a, i] * stay * (one - stay)
            dgates[a, 2 * size + i] = dafter * come * (one - new * new)
            dgates[a, 3 * size + i] = dhidden[a, i] * squashed[a, i] * go * (one - go)
            dmemory[a, i] = dafter * stay


@compiled
def _write(gates, scale, old, new):
    """WRITE, given its gate and value before their activations ``[lanes, 2 d]``; they are activated in place."""
    size = old.shape[1]
    activate(gates, scale)
    for a in range(old.shape[0]):
        for i in range(size):
            new[a, i] = old[a, i] + gates[a, i] * (gates[a, size + i] - old[a, i])


@compiled
def _write_backward(gates, old, grad, dold, dgates):
    """Set the gradients of the old leaf and of the gates before their activations, given that of the new leaf."""
    size, one = old.shape[1], old.dtype.type(1)
    for a in range(old.shape[0]):
        for i in range(size):
            gate, value, g = gates[a, i], gates[a, size + i], grad[a, i]
            dold[a, i] = g * (one - gate)
            dgates[a, i] = g * (value - old[a, i]) * gate * (one - gate)
            dgates[a, size + i] = g * gate * (one - value * value)


@compiled
def _path_rows(leaf_rows, depth, rows):
    """Set ``rows`` ``[depth + 1, lanes]`` to the heap rows from the root to the leaves."""
    for level in range(depth + 1):
        for a in range(leaf_rows.shape[0]):
            rows[level, a] = leaf_rows[a] >> (depth - level)


@compiled
def forward(first, last, w, options, noise, record):
    """Run the episodes of lanes ``first`` to ``last``; ``record.nodes`` holds their leaves, its states zeros."""
    lanes = last - first
    accesses, _, depth = record.logits.shape
    dtype = record.nodes.dtype
    num_leaves, size = record.nodes.shape[1] // 2, record.nodes.shape[2]
    units, controller = record.keys.shape[2], record.hidden.shape[2]
    nodes, keys = record.nodes[first:last], record.keys[first:last]
    pair, node, key = (
        np.empty((lanes, w.join_hidden.shape[0]), dtype),
        np.empty((lanes, size), dtype),
        np.empty((lanes, units), dtype),
    )
    cell_input, write_input = np.empty((lanes, w.cell.shape[0]), dtype), np.empty((lanes, size + controller), dtype)
    no_bias = np.zeros(units, dtype)
    width = w.join_out.shape[1]
    join_scale = _scales(lanes, width, 2 * size if options.gated else 0, width, dtype)
    write_scale = _scales(lanes, 2 * size, size, 2 * size, dtype)
    cell_scale = _scales(lanes, 4 * controller, 2 * controller, 3 * controller, dtype)
    ends, rows = np.empty((lanes, depth + 1), np.int64), np.empty((depth + 1, lanes), np.int64)
    _build(first, last, w, options, join_scale, record, pair, node, key)
    for t in range(accesses):
        kept = t if options.keep else 0
        before, after = (t, t + 1) if options.keep else (t % 2, (t + 1) % 2)
        hidden, state = record.hidden[t, first:last], record.hidden[t if options.given else t + 1, first:last]
        query, read = record.queries[kept, first:last], record.reads[t, first:last]
        # Attend and read
        affine(hidden, w.search_query, no_bias, query)
        for a in range(lanes):
            _descend(keys[a], query[a], w, options, noise[t, first + a], depth, record.logits[t, first + a], ends[a])
            record.leaves[t, first + a] = ends[a, 0] - num_leaves
            if options.counterfactual:
                for level in range(depth):
                    record.other_leaves[kept, first + a, level] = ends[a, 1 + level]
        _path_rows(ends[:, 0], depth, rows)
        _gather(nodes, rows[depth], read)
        for level in range(depth + 1):
            _gather(nodes, rows[level], record.old_nodes[kept, level, first:last])
        for level in range(depth):
            _gather(keys, rows[level], record.old_keys[kept, level, first:last])
        # Step the cell
        if not options.given:
            _beside(read, hidden, cell_input)
            gates = record.cell_gates[kept, first:last]
            affine(cell_input, w.cell, w.cell_bias, gates)
            _step_cell(gates, cell_scale, record.memory[before, first:last], record.memory[after, first:last], state)
        # Write and re-join, unless nobody will read it
        if t == accesses - 1:
            continue
        _beside(read, state, write_input)
        gates = record.write_gates[kept, first:last]
        affine(write_input, w.write, w.write_bias, gates)
        _write(gates, write_scale, read, node)
        _scatter(node, rows[depth], nodes)
        for level in range(depth - 1, -1, -1):
            _pair(node, nodes, rows[level + 1], pair)
            hidden_units, gates = (
                record.join_hidden[kept, level, first:last],
                record.join_gates[kept, level, first:last],
            )
            _join(pair, w, options.gated, join_scale, hidden_units, gates, node)
            affine(node, w.search_node, w.search_node_bias, key)
            _scatter(node, rows[level], nodes)
            _scatter(key, rows[level], keys)


@compiled
def _node_backward(node, dnode, dkey, w_t, w_grad, block):
    """Add to the gradient of a node that of its key, and to those of the weights between them."""
    accumulate(dkey, w_t.search_node, dnode)
    accumulate(node.T, dkey, w_grad.search_node[block])
    add_column_sums(dkey, w_grad.search_node_bias[block])


@compiled
def _worths(
    first,
    t,
    w,
    w_t,
    options,
    record,
    rows,
    nodes,
    dnodes,
    dkeys,
    state,
    read,
    dleaf,
    join_scale,
    write_scale,
    worth,
):
    """Set ``worth`` ``[depth + 1, lanes]`` to the loss that access ``t`` adds by writing where it did, and elsewhere.

    To first order: the gradient of a leaf after the write, its ancestors re-joined, along the change that WRITE makes.
    First that of the attended leaf, then those of the counterfactual leaves from the root down.

    Args:
        first: First lane.
        t: The access.
        w: Weights.
        w_t: Their matrices transposed.
        options: Those of forward.
        record: What forward left.
        rows: Heap rows of the path, ``[depth + 1, lanes]``.
        nodes: The trees before the write; only the path differs from those after it.
        dnodes: Gradients of the nodes beside the path, after the write, with what they get from the re-joined path.
        dkeys: Gradients of their keys.
        state: The query of WRITE.
        read: The attended leaf before the write.
        dleaf: Gradient of the attended leaf after it.
        join_scale: Of the activations of JOIN.
        write_scale: Of those of WRITE.
        worth: What is set.
    """
    lanes, size = read.shape
    dtype = read.dtype
    depth = rows.shape[0] - 1
    units = dkeys.shape[2]
    zero = dtype.type(0)
    seen = w.join_hidden.shape[0]
    pair, dpair = np.empty((lanes, seen), dtype), np.empty((lanes, seen), dtype)
    gates, dgates = np.empty((lanes, w.join_out.shape[1]), dtype), np.empty((lanes, w.join_out.shape[1]), dtype)
    hidden, dhidden = np.empty((lanes, w.join_out.shape[0]), dtype), np.empty((lanes, w.join_out.shape[0]), dtype)
    grad, node, dkey = np.empty((lanes, size), dtype), np.empty((lanes, size), dtype), np.empty((lanes, units), dtype)
    write_input, write_gates = np.empty((lanes, w.write.shape[0]), dtype), np.empty((lanes, 2 * size), dtype)
    at, below = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
    for a in range(lanes):
        total = zero
        for i in range(size):
            gate, value = record.write_gates[t, first + a, i], record.write_gates[t, first + a, size + i]
            total += dleaf[a, i] * gate * (value - read[a, i])
        worth[0, a] = total
    for start in range(1, depth + 1):
        for a in range(lanes):
            at[a] = rows[start, a] ^ 1
        _gather(dnodes, at, grad)
        for level in range(start, depth):
            _gather(dkeys, at, dkey)
            accumulate(dkey, w_t.search_node, grad)
            for a in range(lanes):
                row = 2 * at[a]
                below[a] = record.other_leaves[t, first + a, start - 1] >> (depth - level - 1)
                for i in range(size):
                    pair[a, i] = nodes[a, row, i]
                    pair[a, size + i] = nodes[a, row + 1, i]
            _compare(pair, size)
            _join(pair, w, options.gated, join_scale, hidden, gates, node)
            _join_input_backward(pair, hidden, gates, grad, w_t, options.gated, dpair, dgates, dhidden)
            for a in range(lanes):
                offset = size if below[a] & 1 else 0
                for i in range(size):
                    grad[a, i] = dnodes[a, below[a], i] + dpair[a, offset + i]
                at[a] = below[a]
        _gather(nodes, at, node)
        _beside(node, state, write_input)
        affine(write_input, w.write, w.write_bias, write_gates)
        activate(write_gates, write_scale)
        for a in range(lanes):
            total = zero
            for i in range(size):
                total += grad[a, i] * write_gates[a, i] * (write_gates[a, size + i] - node[a, i])
            worth[start, a] = total


@compiled
def backward(
    first, last, block, w, w_t, options, noise, record, dhidden_out, dreads, dlogits, w_grad, dleaves, dqueries
):
    """Add to ``w_grad`` at ``block``, and set ``dleaves`` and ``dqueries``, for the lanes ``first`` to ``last``.

    Args:
        first: First lane.
        last: Lane after the last.
        block: Where in ``w_grad`` the sums over these lanes stand.
        w: Weights.
        w_t: Their matrices transposed, ``[out, in]``.
        options: Those of forward.
        noise: That of forward.
        record: What forward left; it stays as it is.
        dhidden_out: Gradient of the states after each access, ``[T, B, l]``; not used where queries are given.
        dreads: Gradient of what was read, ``[T, B, d]``.
        dlogits: Gradient of SEARCH along the paths, ``[T, B, k]``.
        w_grad: Gradients of the weights, ``[blocks, ...]``.
        dleaves: Gradient of the leaves at first, ``[B, n, d]``.
        dqueries: Gradient of the queries, ``[T, B, l]``, where they are given.
    """
    lanes = last - first
    accesses, _, depth = record.logits.shape
    dtype = record.nodes.dtype
    zero = dtype.type(0)
    num_leaves, size = record.nodes.shape[1] // 2, record.nodes.shape[2]
    units, controller = record.keys.shape[2], record.hidden.shape[2]
    nodes = record.nodes[first:last].copy()
    dnodes, dkeys = np.zeros_like(nodes), np.zeros((lanes, num_leaves, units), dtype)
    dstate, dmemory = np.zeros((lanes, controller), dtype), np.zeros((lanes, controller), dtype)
    path, dpath = np.empty((depth + 1, lanes, size), dtype), np.empty((depth + 1, lanes, size), dtype)
    dpath_keys = np.empty((depth, lanes, units), dtype)
    seen = w.join_hidden.shape[0]
    pair, dpair = np.empty((lanes, seen), dtype), np.empty((lanes, seen), dtype)
    dgates = np.empty((lanes, record.join_gates.shape[3]), dtype)
    dunits = np.empty((lanes, record.join_hidden.shape[3]), dtype)
    write_input, dwrite_input = np.empty((lanes, size + controller), dtype), np.empty((lanes, size + controller), dtype)
    dwrite_gates, dcell_gates = np.empty((lanes, 2 * size), dtype), np.empty((lanes, 4 * controller), dtype)
    cell_input, dcell_input = np.empty((lanes, w.cell.shape[0]), dtype), np.empty((lanes, w.cell.shape[0]), dtype)
    dleaf, dread, dquery = (
        np.empty((lanes, size), dtype),
        np.empty((lanes, size), dtype),
        np.empty((lanes, units), dtype),
    )
    dlogit, squashed = np.empty(lanes, dtype), np.empty((lanes, controller), dtype)
    rows = np.empty((depth + 1, lanes), np.int64)
    before_state = dcell_input.shape[1] - controller
    worth, place, dplace = np.zeros((depth + 1, lanes), dtype), np.empty(lanes, dtype), np.empty((lanes, units), dtype)
    share, query_share, one = dtype.type(options.place_share), dtype.type(options.query_share), dtype.type(1)
    width = record.join_gates.shape[3]
    join_scale = _scales(lanes, width, 2 * size if options.gated else 0, width, dtype)
    write_scale = _scales(lanes, 2 * size, size, 2 * size, dtype)
    for t in range(accesses - 1, -1, -1):
        hidden, state = record.hidden[t, first:last], record.hidden[t if options.given else t + 1, first:last]
        query, read = record.queries[t, first:last], record.reads[t, first:last]
        leaf_rows = record.leaves[t, first:last] + num_leaves
        _path_rows(leaf_rows, depth, rows)
        if options.given:
            dstate[:] = zero
        else:
            for a in range(lanes):
                for i in range(controller):
                    dstate[a, i] += dhidden_out[t, first + a, i]
        dleaf[:] = zero
        if t < accesses - 1:  # the last access wrote nothing
            # The nodes that this access wrote, and their gradients; what stood there before was not seen from here on.
            for level in range(depth + 1):
                _gather(nodes, rows[level], path[level])
                _take(dnodes, rows[level], dpath[level])
                _scatter(record.old_nodes[t, level, first:last], rows[level], nodes)
            for level in range(depth):
                _take(dkeys, rows[level], dpath_keys[level])
            # Re-join
            for level in range(depth):
                _node_backward(path[level], dpath[level], dpath_keys[level], w_t, w_grad, block)
                _pair(path[level + 1], nodes, rows[level + 1], pair)
                hidden_units, gates = record.join_hidden[t, level, first:last], record.join_gates[t, level, first:last]
                _join_backward(
                    pair, hidden_units, gates, dpath[level], w_t, options.gated, w_grad, block, dpair, dgates, dunits
                )
                _pair_backward(dpair, rows[level + 1], dpath[level + 1], dnodes)
            if options.through_write:
                _worths(
                    first, t, w, w_t, options, record, rows, nodes, dnodes, dkeys, state, read, dpath[depth],
                    join_scale, write_scale, worth,
                )  # fmt: skip
            # Write
            _write_backward(record.write_gates[t, first:last], read, dpath[depth], dleaf, dwrite_gates)
            _beside(read, state, write_input)
            accumulate(write_input.T, dwrite_gates, w_grad.write[block])
            add_column_sums(dwrite_gates, w_grad.write_bias[block])
            dwrite_input[:] = zero
            accumulate(dwrite_gates, w_t.write, dwrite_input)
            for a in range(lanes):
                for i in range(size):
                    dleaf[a, i] += dwrite_input[a, i]
                for i in range(controller):
                    dstate[a, i] += query_share * dwrite_input[a, size + i]
        # Step the cell
        if options.given:
            for a in range(lanes):
                for i in range(size):
                    dread[a, i] = dreads[t, first + a, i]
                    dleaf[a, i] += dread[a, i]
        else:
            memory_before, memory_after = record.memory[t, first:last], record.memory[t + 1, first:last]
            gates = record.cell_gates[t, first:last]
            _step_cell_backward(gates, memory_before, memory_after, dstate, dmemory, dcell_gates, squashed)
            _beside(read, hidden, cell_input)
            accumulate(cell_input.T, dcell_gates, w_grad.cell[block])
            add_column_sums(dcell_gates, w_grad.cell_bias[block])
            dcell_input[:] = zero
            accumulate(dcell_gates, w_t.cell, dcell_input)
            for a in range(lanes):
                for i in range(controller):
                    dstate[a, i] = dcell_input[a, before_state + i]
                for i in range(size):
                    dread[a, i] = dcell_input[a, i] + dreads[t, first + a, i]
                    dleaf[a, i] += dread[a, i]
        # Read and attend
        for a in range(lanes):
            for i in range(size):
                dnodes[a, leaf_rows[a], i] += dleaf[a, i]
        dquery[:] = zero
        for level in range(depth):
            _branch_gradients(
                first, t, level, depth, leaf_rows, nodes, dread, worth, dlogits, options, noise, record, dlogit, place
            )
            for a in range(lanes):
                w_grad.search_out_bias[block, 0] += dlogit[a] + place[a]
            path_keys = record.old_keys[t, level, first:last]
            dout = w_grad.search_out[block]
            _search_backward(
                path_keys,
                rows[level],
                query,
                dlogit,
                place,
                share,
                options.through_write,
                w,
                dout,
                dkeys,
                dquery,
                dplace,
            )
            if options.through_write:
                accumulate(record.old_nodes[t, level, first:last].T, dplace, w_grad.search_node[block])
                add_column_sums(dplace, w_grad.search_node_bias[block])
        accumulate(hidden.T, dquery, w_grad.search_query[block])
        if query_share != one:
            for a in range(lanes):
                for u in range(units):
                    dquery[a, u] *= query_share
        if query_share != zero:
            accumulate(dquery, w_t.search_query, dstate)
        if options.given:
            for a in range(lanes):
                for i in range(controller):
                    dqueries[t, first + a, i] = dstate[a, i]
    # The tree as it was built
    dparent, dkey, parent = (
        np.empty((lanes, size), dtype),
        np.empty((lanes, units), dtype),
        np.empty((lanes, size), dtype),
    )
    at_row = np.empty(lanes, np.int64)
    for row in range(1, num_leaves):
        at_row[:] = row
        _gather(nodes, at_row, parent)
        _gather(dnodes, at_row, dparent)
        _gather(dkeys, at_row, dkey)
        _node_backward(parent, dparent, dkey, w_t, w_grad, block)
        _children(nodes, row, pair)
        hidden_units, gates = record.build_hidden[row, first:last], record.build_gates[row, first:last]
        _join_backward(pair, hidden_units, gates, dparent, w_t, options.gated, w_grad, block, dpair, dgates, dunits)
        for a in range(lanes):
            for i in range(size):
                dnodes[a, 2 * row, i] += dpair[a, i]
                dnodes[a, 2 * row + 1, i] += dpair[a, size + i]
    dleaves[first:last] = dnodes[:, num_leaves:]
