"""JOIN of two children to their parent, forward and backward, and the layout of pairs of children."""

from __future__ import annotations

import math

from lightning_ham.engines.kernels.arithmetic import (
    accumulate,
    activate,
    add_column_sums,
    affine,
    compared,
    compiled,
    on_grid,
    real_row,
)
from lightning_ham.memory.constants import COARSEST_DIFFERENCE


@compiled
def compare(x, size):
    """Fill the end of ``x``, after two children of ``size`` numbers, with the differences of their first numbers."""
    for a in range(x.shape[0]):
        for i in range(2 * size, x.shape[1]):
            x[a, i] = compared(x[a, i - 2 * size], x[a, i - size])


@compiled
def compare_backward(x, size, dx):
    """Add the gradient of :func:`compare` to those of the two children, in ``dx``."""
    half, coarsest = x.dtype.type(0.5), x.dtype.type(COARSEST_DIFFERENCE)
    for a in range(x.shape[0]):
        for i in range(2 * size, x.shape[1]):
            left, right = i - 2 * size, i - size
            difference = x[a, left] - x[a, right]
            slope = half * dx[a, i] / math.sqrt(difference * difference + coarsest * coarsest)
            dx[a, left] += slope
            dx[a, right] -= slope


@compiled
def with_sibling(own, nodes, rows, x):
    """Copy the nodes ``own`` ``[lanes, d]`` at ``rows`` and their siblings into ``x``, in JOIN's layout."""
    size = own.shape[1]
    for a in range(own.shape[0]):
        sibling = rows[a] ^ 1
        at, beside = (size, 0) if rows[a] & 1 else (0, size)
        for i in range(size):
            x[a, at + i] = own[a, i]
            x[a, beside + i] = nodes[a, sibling, i]
    compare(x, size)


@compiled
def with_sibling_backward(dx, rows, down, dnodes):
    """Add gradients of pairs to those of the nodes at ``rows``, in ``down``, and of their siblings, in ``dnodes``."""
    size = down.shape[1]
    for a in range(down.shape[0]):
        sibling = rows[a] ^ 1
        at, beside = (size, 0) if rows[a] & 1 else (0, size)
        for i in range(size):
            down[a, i] += dx[a, at + i]
            dnodes[a, sibling, i] += dx[a, beside + i]


@compiled
def both_children(nodes, row, x):
    """Copy both children of ``row`` in every lane's tree into ``x``, in JOIN's layout."""
    size = nodes.shape[2]
    for a in range(nodes.shape[0]):
        for i in range(size):
            x[a, i] = nodes[a, 2 * row, i]
            x[a, size + i] = nodes[a, 2 * row + 1, i]
    compare(x, size)


@compiled
def join(x, w, options, scale, hidden, gates, out):
    """Join ``x`` ``[lanes, 2 d + r]``, both children and the differences of reals, into ``out`` ``[lanes, d]``."""
    lanes, size = out.shape
    reals = x.shape[1] - 2 * size
    zero = out.dtype.type(0)
    affine(x, w.join_hidden, w.join_hidden_bias, hidden)
    for a in range(lanes):
        for u in range(hidden.shape[1]):
            hidden[a, u] = max(hidden[a, u], zero)
    affine(hidden, w.join_out, w.join_out_bias, gates)
    activate(gates, scale)
    if options.gated:
        for a in range(lanes):
            for i in range(size):
                chosen = x[a, i] + gates[a, i] * (x[a, size + i] - x[a, i])
                out[a, i] = chosen + gates[a, size + i] * (gates[a, 2 * size + i] - chosen)
    else:
        out[:] = gates
    if options.steps > zero:
        for a in range(lanes):
            for i in range(size):
                out[a, i] = on_grid(out[a, i], options.steps)
    for a in range(lanes):
        for i in range(reals):
            out[a, i] = x[a, real_row(x[a, i], x[a, size + i], i, reals, size)]


@compiled
def join_input_backward(x, hidden, gates, grad, w_t, gated, dx, dgates, dhidden):
    """Set ``dx`` ``[lanes, 2 d + r]`` to the gradient of JOIN's input, given ``grad``, that of its output.

    Set ``dgates`` and ``dhidden``, shaped as ``gates`` and ``hidden``, to the gradients before the activations.
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
    compare_backward(x, size, dx)


@compiled
def join_backward(x, hidden, gates, grad, w_t, gated, w_grad, block, dx, dgates, dhidden):
    """Do the same as :func:`join_input_backward`, and add to the weights' gradients."""
    join_input_backward(x, hidden, gates, grad, w_t, gated, dx, dgates, dhidden)
    accumulate(hidden.T, dgates, w_grad.join_out[block])
    add_column_sums(dgates, w_grad.join_out_bias[block])
    accumulate(x.T, dhidden, w_grad.join_hidden[block])
    add_column_sums(dhidden, w_grad.join_hidden_bias[block])
