"""A step of the LSTM, forward and backward."""

from __future__ import annotations

from lightning_ham.engines.kernels.arithmetic import accumulate, activate, add_column_sums, affine, compiled, tanh_of
from lightning_ham.engines.kernels.rows import beside


@compiled
def step_cell(read, hidden, before, w, scale, x, gates, after, new_hidden):
    """Step an LSTM with input ``read`` ``[lanes, d]``, from states ``hidden`` and ``before`` to the new ones.

    Sets ``gates`` ``[lanes, 4 l]``, after their activations, ``after`` and ``new_hidden``; ``x`` ``[lanes, d + l]`` is
    scratch.
    """
    size = before.shape[1]
    beside(read, hidden, x)
    affine(x, w.cell, w.cell_bias, gates)
    activate(gates, scale)
    for a in range(before.shape[0]):
        for i in range(size):
            after[a, i] = gates[a, size + i] * before[a, i] + gates[a, i] * gates[a, 2 * size + i]
    tanh_of(after, new_hidden)
    for a in range(before.shape[0]):
        for i in range(size):
            new_hidden[a, i] *= gates[a, 3 * size + i]


@compiled
def step_cell_backward(
    read, hidden, before, gates, after, w_t, w_grad, block, dhidden, dmemory, squashed, x, dx, dgates
):
    """Set the gradient ``dx`` ``[lanes, d + l]`` of the cell's input and hidden state, and add to the weights'.

    Args:
        read: As in :func:`step_cell`, like ``hidden`` and ``before``.
        hidden: The hidden state.
        before: The cell state.
        gates: As :func:`step_cell` set them.
        after: The cell state after the step.
        w_t: Weights, transposed.
        w_grad: Their gradients.
        block: Index of these lanes' block in ``w_grad``.
        dhidden: Gradient of the new hidden state.
        dmemory: Gradient of ``after``; overwritten by that of ``before``.
        squashed: Scratch, as ``after``.
        x: Scratch, as ``dx``.
        dx: The result.
        dgates: Scratch, as ``gates``.
    """
    size, one, zero = before.shape[1], before.dtype.type(1), before.dtype.type(0)
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
    beside(read, hidden, x)
    accumulate(x.T, dgates, w_grad.cell[block])
    add_column_sums(dgates, w_grad.cell_bias[block])
    dx[:] = zero
    accumulate(dgates, w_t.cell, dx)
