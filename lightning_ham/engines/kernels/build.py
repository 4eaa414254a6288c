"""Building trees from their leaves, forward and backward."""

from __future__ import annotations

import numpy as np

from lightning_ham.engines.kernels.arithmetic import affine, compiled
from lightning_ham.engines.kernels.join import both_children, join, join_backward
from lightning_ham.engines.kernels.rows import gather, scatter
from lightning_ham.engines.kernels.search import node_backward


@compiled
def build(first, last, w, options, scale, record, x, out, key):
    """Join the leaves of the lanes ``first`` to ``last`` bottom-up; ``x``, ``out`` and ``key`` are scratch."""
    nodes, keys = record.nodes[first:last], record.keys[first:last]
    rows = np.empty(last - first, np.int64)
    for row in range(keys.shape[1] - 1, 0, -1):
        kept = row if options.keep else 0
        both_children(nodes, row, x)
        hidden_units, gates = record.build_hidden[kept, first:last], record.build_gates[kept, first:last]
        join(x, w, options, scale, hidden_units, gates, out)
        affine(out, w.search_node, w.search_node_bias, key)
        rows[:] = row
        scatter(out, rows, nodes)
        scatter(key, rows, keys)


@compiled
def build_backward(first, last, w_t, options, record, nodes, dnodes, dkeys, w_grad, block):
    """Pass the gradients of all nodes down to the leaves, and add to those of the weights, for these lanes.

    ``nodes`` are the trees as built; ``dnodes`` and ``dkeys`` are the gradients of the nodes and of their keys.
    """
    lanes, num_leaves, units = dkeys.shape
    size, dtype = nodes.shape[2], nodes.dtype
    pair, dpair = np.empty((lanes, w_t.join_hidden.shape[1]), dtype), np.empty((lanes, w_t.join_hidden.shape[1]), dtype)
    dgates = np.empty((lanes, record.build_gates.shape[2]), dtype)
    dunits = np.empty((lanes, record.build_hidden.shape[2]), dtype)
    dparent, dkey, parent = (
        np.empty((lanes, size), dtype),
        np.empty((lanes, units), dtype),
        np.empty((lanes, size), dtype),
    )
    at_row = np.empty(lanes, np.int64)
    for row in range(1, num_leaves):
        at_row[:] = row
        gather(nodes, at_row, parent)
        gather(dnodes, at_row, dparent)
        gather(dkeys, at_row, dkey)
        node_backward(parent, dparent, dkey, w_t, w_grad, block)
        both_children(nodes, row, pair)
        hidden_units, gates = record.build_hidden[row, first:last], record.build_gates[row, first:last]
        join_backward(pair, hidden_units, gates, dparent, w_t, options.gated, w_grad, block, dpair, dgates, dunits)
        for a in range(lanes):
            for i in range(size):
                dnodes[a, 2 * row, i] += dpair[a, i]
                dnodes[a, 2 * row + 1, i] += dpair[a, size + i]
