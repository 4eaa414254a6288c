"""Inputs and results of the compiled loops for episodes.

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
    """The parameters in the kernels' layout; also their gradients, with one more dimension in front."""

    join_hidden: Any
    """``[2 d + r, j]``: from both children and the differences of their ``r`` reals"""
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
    """``[d + l, 2 d]``: from leaf and query to gate and value"""
    write_bias: Any
    cell: Any
    """``[input + l, 4 l]``: from input and state to the gates i, f, g, o; ``[l, 0]`` without a cell"""
    cell_bias: Any


class Options(NamedTuple):
    """Options of the episodes."""

    gated: bool
    """Whether JOIN is the gated one."""
    sampled: bool
    """Whether branches are sampled (else: right iff the logit is positive)."""
    counterfactual: bool
    """Whether to descend from siblings not taken, too, for straight-through."""
    through_write: bool
    """Whether the branches also get the gradient of the write's place; needs ``counterfactual``."""
    steps: Any
    """``1 / grid`` in the type of the nodes; 0 if they are not rounded."""
    given: bool
    """Whether the queries of all accesses are given, instead of being a cell's states."""
    place_share: float
    """Share of the gradient of a write's place that SEARCH passes on to the nodes."""
    query_share: float
    """Share of the gradients of SEARCH and WRITE that the queries get."""
    keep: bool
    """Whether a backward pass follows."""


class Record(NamedTuple):
    """Results of forward; without ``keep``, arrays of the second group only have room for one access."""

    hidden: Array
    """``[T + 1, B, l]``: the cell's state before each access, and at the end; or the given queries"""
    reads: Array
    """``[T, B, d]``"""
    logits: Array
    """``[T, B, k]``"""
    leaves: Array
    """``[T, B]``, counted from 0"""
    nodes: Array
    """``[B, 2 n, d]``: first the leaves, in the end the trees after the last write"""
    keys: Array
    """``[B, n, s]``"""

    memory: Array
    """``[T + 1, B, l]``: the LSTM's cell state"""
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
    """Gradients that backward gets (the first group), and those that it computes."""

    hidden: Array
    """Of the states after each access, ``[T, B, l]``; unused if queries are given"""
    reads: Array
    """Of the values read, ``[T, B, d]``"""
    logits: Array
    """Of the logits along the paths, ``[T, B, k]``"""

    weights: Weights
    """Of the weights, ``[blocks, ...]``: added to"""
    leaves: Array
    """Of the initial leaves, ``[B, n, d]``: set"""
    queries: Array
    """Of the queries, if given, ``[T, B, l]``: set"""


def empty_record(leaves: Array, accesses: int, w: Weights, *, keep: bool) -> tuple[Record, Workspace]:
    """Return an empty record for ``leaves`` ``[B, n, d]``, and the workspace that holds most of its arrays."""
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
