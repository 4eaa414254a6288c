"""Open sessions: one access after another to one tree, prepared once, so that each costs little but arithmetic.

Everything runs in the caller's thread. This module imports the compiled loops, so import it only where it is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from lightning_ham.engines.first_use import FirstUse
from lightning_ham.engines.kernels import access
from lightning_ham.engines.single import arrays, grid_steps, search_parameters, write_parameters
from lightning_ham.memory import HierarchicalAttentiveMemory, Tree

Array = np.ndarray[Any, Any]

_first_session = FirstUse(
    "Compiling the loops that carry out operations for this machine; this takes some seconds, once."
)


def open_session(memory: HierarchicalAttentiveMemory, tree: Tree) -> Session:
    """Return a session on ``tree``, a batch of one that it changes in place; compile the loops if necessary.

    There must be no :func:`lightning_ham.engines.obstacles.obstacle` for its nodes and JOIN, SEARCH and WRITE.
    """
    (nodes,) = arrays(tree.nodes)
    search = access.SearchWeights(*_copies(*search_parameters(memory.search)))
    write = access.WriteWeights(*(*_copies(*write_parameters(memory)), grid_steps(memory)))
    with _first_session():
        return Session(nodes, search, write)


def perceptron(layers: nn.Sequential) -> Perceptron:
    """Return the compiled form of a linear layer, a ReLU and a linear layer that have no obstacle."""
    hidden, out = (layer for layer in layers if isinstance(layer, nn.Linear))
    return Perceptron(*_copies(hidden.weight, _bias(hidden), out.weight, _bias(out)))


def _copies(*tensors: Tensor) -> list[Any]:
    return [array.copy() for array in arrays(*tensors)]


def _bias(layer: nn.Linear) -> Tensor:
    bias: Any = layer.bias  # None without a bias, unlike its annotation
    return layer.weight.new_zeros(layer.out_features) if bias is None else bias


class Session:
    """Accesses to one tree, on arrays that are allocated once.

    Args:
        nodes: The tree, ``[1, 2 n, d]``, which is changed in place.
        search: SEARCH's weights.
        write: The weights of WRITE and JOIN.
    """

    def __init__(self, nodes: Array, search: access.SearchWeights, write: access.WriteWeights) -> None:
        _, rows, size = nodes.shape
        depth = rows.bit_length() - 2
        self._nodes, self._at_first = nodes, nodes.copy()
        self._search, self._write = search, write
        self._leaf_row = np.empty(1, np.int64)
        self._noise = np.empty((1, 0), nodes.dtype)
        self._logits = np.empty((1, depth), nodes.dtype)
        self._path, self._siblings = (np.empty((1, count, size), nodes.dtype) for count in (depth + 1, depth))
        query = np.zeros((1, search.query.shape[1]), nodes.dtype)
        self.put(query, self.access(query))  # compiles the loops, or loads them
        self.restart()

    def restart(self) -> None:
        """Restore the initial tree."""
        self._nodes[:] = self._at_first

    def access(self, query: Array) -> Array:
        """Attend, read and write; return the value read, ``[d]``.

        Args:
            query: ``[1, l]``, of the type of the tree.
        """
        self._attend(query)
        access.write(self._nodes, self._leaf_row, query, self._write)
        return self._path[0, -1].copy()

    def put(self, query: Array, leaf: Array) -> None:
        """Attend, and put ``leaf`` ``[d]`` there without WRITE."""
        self._attend(query)
        self._nodes[0, self._leaf_row[0]] = leaf
        access.rejoin(self._nodes, self._leaf_row, self._write)

    def _attend(self, query: Array) -> None:
        access.attend(
            self._nodes, query, self._noise, self._search, self._leaf_row, self._logits, self._path, self._siblings
        )


class Perceptron:
    """A hidden layer of rectified units and an output layer.

    Args:
        hidden: Weights, ``[units, inputs]``.
        hidden_bias: ``[units]``.
        out: ``[outputs, units]``.
        out_bias: ``[outputs]``.

    Raises:
        ValueError: If the layers or an input do not fit: compiled loops check no bounds.
    """

    def __init__(self, hidden: Array, hidden_bias: Array, out: Array, out_bias: Array) -> None:
        if out.shape[1] != hidden.shape[0]:
            raise ValueError(f"Expected an output layer of {hidden.shape[0]} inputs, but got {out.shape[1]}.")
        self._hidden, self._hidden_bias, self._out, self._out_bias = hidden, hidden_bias, out, out_bias

    def __call__(self, x: Array) -> Array:
        """Return the outputs ``[outputs]`` for ``x`` ``[inputs]``."""
        if x.shape != self._hidden.shape[1:]:
            raise ValueError(f"Expected an input of {self._hidden.shape[1]} numbers, but got one of {list(x.shape)}.")
        hidden, out = self._hidden_bias.copy(), self._out_bias.copy()
        access.multiply(self._hidden, x, hidden)
        access.multiply(self._out, np.maximum(hidden, 0, out=hidden), out)
        return out
