"""WRITE, forward and backward."""

from __future__ import annotations

from lightning_ham.engines.kernels.arithmetic import accumulate, activate, add_column_sums, affine, compiled, on_grid
from lightning_ham.engines.kernels.rows import beside


@compiled
def change(old, gate, value, steps):
    """Return what WRITE adds to one number of a leaf, given gate and value; ``steps`` as in :class:`Options`."""
    added = gate * (value - old)
    return on_grid(old + added, steps) - old if steps > 0 else added


@compiled
def write(old, query, w, options, reals, scale, x, gates, new):
    """Set ``new`` to WRITE of ``old`` ``[lanes, d]`` with ``query`` ``[lanes, l]``.

    ``gates`` ``[lanes, 2 d]`` are set to gate and value, after activation; ``x`` ``[lanes, d + l]`` is scratch. The
    first ``reals`` numbers are not rounded.
    """
    size, zero = old.shape[1], old.dtype.type(0)
    beside(old, query, x)
    affine(x, w.write, w.write_bias, gates)
    activate(gates, scale)
    for a in range(old.shape[0]):
        for i in range(size):
            new[a, i] = old[a, i] + gates[a, i] * (gates[a, size + i] - old[a, i])
        if options.steps > zero:
            for i in range(reals, size):
                new[a, i] = on_grid(new[a, i], options.steps)


@compiled
def write_backward(old, query, gates, grad, w_t, w_grad, block, query_share, x, dx, dgates, dold, dquery):
    """Set the gradient of the old leaf and add to those of query and weights, given the new leaf's gradient.

    Args:
        old: The old leaf, ``[lanes, d]``.
        query: As in :func:`write`.
        gates: Gate and value from :func:`write`.
        grad: Gradient of the new leaf, ``[lanes, d]``.
        w_t: Weights, transposed.
        w_grad: Their gradients.
        block: Index of these lanes in them.
        query_share: Factor of the query's gradient.
        x: Scratch, ``[lanes, d + l]``.
        dx: Scratch, shaped as ``x``.
        dgates: Scratch, shaped as ``gates``.
        dold: Set to the gradient of the old leaf.
        dquery: Gradient of the query, ``[lanes, l]``.
    """
    size, one, zero = old.shape[1], old.dtype.type(1), old.dtype.type(0)
    for a in range(old.shape[0]):
        for i in range(size):
            gate, value, g = gates[a, i], gates[a, size + i], grad[a, i]
            dold[a, i] = g * (one - gate)
            dgates[a, i] = g * (value - old[a, i]) * gate * (one - gate)
            dgates[a, size + i] = g * gate * (one - value * value)
    beside(old, query, x)
    accumulate(x.T, dgates, w_grad.write[block])
    add_column_sums(dgates, w_grad.write_bias[block])
    dx[:] = zero
    accumulate(dgates, w_t.write, dx)
    for a in range(old.shape[0]):
        for i in range(size):
            dold[a, i] += dx[a, i]
        for i in range(dquery.shape[1]):
            dquery[a, i] += query_share * dx[a, size + i]
