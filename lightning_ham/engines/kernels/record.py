"""What compiled loops are given for episodes, and what they leave.

Arrays are C-contiguous, of one float type; weight matrices are ``[in, out]``. Symbols in shapes: ``T`` accesses, ``B``
batch, ``n`` leaves, ``k`` levels of decisions, ``d`` leaf size, ``l`` controller size, ``s`` and ``j`` hidden units of
SEARCH and JOIN, ``r`` reals of a node.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lightning_ham.engines.kernels.workspace import Workspace

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
    steps: Any
    """Multiples of the grid in 1, of the type of the nodes; 0 if they are not rounded."""
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


class Gradients(NamedTuple):
    """What backward is given, and what it makes of it."""

    hidden: Array
    """Of the states after each access, ``[T, B, l]``; not used where queries are given"""
    reads: Array
    """Of what was read, ``[T, B, d]``"""
    logits: Array
    """Of SEARCH along the paths, ``[T, B, k]``"""

    weights: Weights
    """Of the weights, ``[blocks, ...]``: they are added to"""
    leaves: Array
    """Of the leaves at first, ``[B, n, d]``: they are set"""
    queries: Array
    """Of the queries where they are given, ``[T, B, l]``: they are set"""


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
