"""The gradient of the place of a write, from the loss that a write elsewhere would add."""

from __future__ import annotations

import numpy as np

from lightning_ham.engines.kernels.arithmetic import accumulate, activate, affine, compiled
from lightning_ham.engines.kernels.join import compare, join, join_input_backward
from lightning_ham.engines.kernels.rows import beside, gather
from lightning_ham.engines.kernels.write import change


@compiled
def worths(
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
    """Set ``worth`` ``[depth + 1, lanes]`` to the loss that a write in access ``t`` adds, by the leaf written to.

    To first order, this is the product of the leaf's gradient after the write and the change that WRITE makes. The
    attended leaf comes first, then the counterfactual leaves from the root down.

    Args:
        first: First lane.
        t: Index of the access.
        w: Weights.
        w_t: Their matrices transposed.
        options: As in forward.
        record: Results of forward.
        rows: Heap rows of the path, ``[depth + 1, lanes]``.
        nodes: The trees before the write, which changes only the path.
        dnodes: Gradients of the nodes beside the path after the write, including those from the re-joined path.
        dkeys: Gradients of their keys.
        state: The query of WRITE.
        read: The attended leaf before the write.
        dleaf: Gradient of the attended leaf after the write.
        join_scale: Scale of JOIN's activations.
        write_scale: Scale of WRITE's activations.
        worth: The result.
    """
    lanes, size = read.shape
    dtype = read.dtype
    depth = rows.shape[0] - 1
    units = dkeys.shape[2]
    zero = dtype.type(0)
    seen = w.join_hidden.shape[0]
    reals = seen - 2 * size
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
            total += dleaf[a, i] * change(read[a, i], gate, value, options.steps if i >= reals else zero)
        worth[0, a] = total
    for start in range(1, depth + 1):
        for a in range(lanes):
            at[a] = rows[start, a] ^ 1
        gather(dnodes, at, grad)
        for level in range(start, depth):
            gather(dkeys, at, dkey)
            accumulate(dkey, w_t.search_node, grad)
            for a in range(lanes):
                row = 2 * at[a]
                below[a] = record.other_leaves[t, first + a, start - 1] >> (depth - level - 1)
                for i in range(size):
                    pair[a, i] = nodes[a, row, i]
                    pair[a, size + i] = nodes[a, row + 1, i]
            compare(pair, size)
            join(pair, w, options, join_scale, hidden, gates, node)
            join_input_backward(pair, hidden, gates, grad, w_t, options.gated, dpair, dgates, dhidden)
            for a in range(lanes):
                offset = size if below[a] & 1 else 0
                for i in range(size):
                    grad[a, i] = dnodes[a, below[a], i] + dpair[a, offset + i]
                at[a] = below[a]
        gather(nodes, at, node)
        beside(node, state, write_input)
        affine(write_input, w.write, w.write_bias, write_gates)
        activate(write_gates, write_scale)
        for a in range(lanes):
            total = zero
            for i in range(size):
                gate, value = write_gates[a, i], write_gates[a, size + i]
                total += grad[a, i] * change(node[a, i], gate, value, options.steps if i >= reals else zero)
            worth[start, a] = total
