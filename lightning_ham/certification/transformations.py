"""The memory's transformations in NumPy, with bounds on what any engine's rounding can change.

Values of nodes are exact: multiples of the grid, as integers (steps). A transformation is computed in float64. Any
engine that computes in float32, in any order of summation, with or without fused operations, differs from that by at
most a bound, which is derived as follows.

A sum of n products in float32 differs from the exact one by at most gamma(n + 2) times the sum of their magnitudes
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Magnitudes of nodes and queries are at most their
greatest ones. ReLU enlarges no error, the logistic function divides it by 4 at least, and tanh keeps it; engines
compute both to within :data:`ACTIVATION_ERROR`. What is rounded to the grid, or is a branch or an output, must be
further from its boundary than the bound: then every engine finds the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.engines.obstacles import has_mixed_grids, replaced, unknown_part
from lightning_ham.memory.transforms import MLPJoin
from lightning_ham.tasks.structures import VALUE_BITS

Array = np.ndarray[Any, Any]

UNIT = 2.0**-24
"""Largest relative error of an operation in float32."""
ACTIVATION_ERROR = 1e-6
"""Largest absolute error of an engine's logistic function and tanh in float32; a test measures 3e-7 at most."""


def gamma(terms: int) -> float:
    """Return the largest relative error of a sum of ``terms`` products, in any order, in float32."""
    return (terms + 2) * UNIT / (1 - (terms + 2) * UNIT)


@dataclass
class Perceptron:
    """A hidden layer of rectified units and an output layer; weights ``[outputs, inputs]``, in float64."""

    hidden: Array
    hidden_bias: Array
    out: Array
    out_bias: Array

    def finish(self, hidden: Array) -> Array:
        """Return outputs ``[..., outputs]`` for a sum of products ``[..., units]`` without the hidden layer's bias."""
        result: Array = np.maximum(hidden + self.hidden_bias, 0) @ self.out.T + self.out_bias
        return result

    def __call__(self, x: Array) -> Array:
        """Return outputs ``[..., outputs]`` for ``x`` ``[..., inputs]``."""
        return self.finish(x @ self.hidden.T)

    def bound(self, most: Array) -> Array:
        """Return a bound of the outputs' errors, given the greatest magnitudes of the inputs."""
        most_hidden = np.abs(self.hidden) @ most + np.abs(self.hidden_bias)
        error = gamma(len(most)) * most_hidden
        out, terms = np.abs(self.out), self.out.shape[1]
        bound: Array = out @ error + gamma(terms) * (out @ (most_hidden + error) + np.abs(self.out_bias))
        return bound


@dataclass
class Rounded:
    """Values on the grid."""

    steps: Array
    """As multiples of the grid, int16 ``[..., leaf_size]``."""
    slack: Array
    """How much further each is from a boundary of rounding than any error, ``[...]``; the least over its numbers."""


class Transformations:
    """EMBED, WRITE, JOIN, SEARCH and the output of a raw HAM whose memory has a grid.

    Args:
        controller: The network.

    Raises:
        ValueError: If it has no grid, or transformations that are not the package's own.
    """

    def __init__(self, controller: RawHAM) -> None:
        memory = controller.memory
        if memory.grid is None:
            raise ValueError(
                "Expected a memory with a grid, so that its nodes take finitely many values, but got grid: null. Train "
                "with `model.controller_options.grid`, or use `--grid`."
            )
        _check_plain(controller)
        self.grid = memory.grid
        self.size = memory.leaf_size
        self._embed, self._head = _perceptron(memory.embed.mlp), _perceptron(controller.head)
        search = memory.search
        self._search = Perceptron(_array(search.node.weight), _bias(search.node), *_layer(search.out))
        self._search_query = _array(search.query.weight)
        self._join = Perceptron(*(_array(parameter) for parameter in memory.join.layer_weights))
        self._has_gates = not isinstance(memory.join, MLPJoin)
        write = memory.write_leaf
        self._write, self._write_bias, self._write_query = (
            _array(write.leaf.weight),
            _bias(write.leaf),
            _array(write.query.weight),
        )
        self.blank = self._rounded(_array(memory.embed.blank), 0.0)
        self._most = np.maximum(np.abs(self.blank.steps) * self.grid, 1.0)  # all else is mixed with values of tanh
        self._most_query = np.zeros(self.size)

    def embedded(self, cells: Array) -> Rounded:
        """Return the queries of operations ``[operations, input_size]``; later bounds are for queries such as these."""
        raw = self._embed(cells)
        rounded = self._rounded(raw, self._embed.bound(np.abs(cells).max(0)))
        self._most_query = np.maximum(self._most_query, np.abs(rounded.steps).max(0) * self.grid)
        return rounded

    def written(self, leaves: Array, queries: Array) -> Rounded:
        """Return WRITE of leaves and queries, both in steps ``[..., leaf_size]``; they broadcast."""
        old = leaves * self.grid
        logits = old @ self._write.T + queries * self.grid @ self._write_query.T + self._write_bias
        gate, value = np.split(logits, 2, axis=-1)
        raw = old + _sigmoid(gate) * (np.tanh(value) - old)
        weights = np.abs(self._write) @ self._most + np.abs(self._write_query) @ self._most_query
        error = gamma(2 * self.size + 1) * (weights + np.abs(self._write_bias))
        gate_error, value_error = np.split(error, 2)
        most = self._most + 1
        bound = most * (gate_error / 4 + ACTIVATION_ERROR) + value_error + ACTIVATION_ERROR + 8 * UNIT * most
        return self._rounded(raw, bound)

    def halves(self, nodes: Array) -> tuple[Array, Array]:
        """Return what nodes ``[nodes, leaf_size]`` add to JOIN's hidden layer as left and as right children."""
        left, right = np.split(self._join.hidden, 2, axis=1)
        values = nodes * self.grid
        return values @ left.T, values @ right.T

    def joined(self, left: Array, right: Array, hidden: Array) -> Rounded:
        """Return parents of children in steps ``[pairs, leaf_size]``, given the sum of their :meth:`halves`."""
        most = np.concatenate((self._most, self._most))
        error, out = self._join.bound(most), self._join.finish(hidden)
        if not self._has_gates:
            return self._rounded(np.tanh(out), error + ACTIVATION_ERROR)
        side, new, candidate = np.split(out, 3, axis=-1)
        first, second = left * self.grid, right * self.grid
        chosen = first + _sigmoid(side) * (second - first)
        raw = chosen + _sigmoid(new) * (np.tanh(candidate) - chosen)
        side_error, new_error, candidate_error = np.split(error, 3)
        most = self._most + 1
        bound = (
            2 * self._most * (side_error / 4 + ACTIVATION_ERROR)
            + most * (new_error / 4 + ACTIVATION_ERROR)
            + candidate_error
            + ACTIVATION_ERROR
            + 16 * UNIT * most
        )
        return self._rounded(raw, bound)

    def searched(self, nodes: Array, queries: Array) -> Array:
        """Return the logits ``[nodes, queries]`` of going right, for nodes and queries in steps."""
        of_nodes = nodes * self.grid @ self._search.hidden.T
        of_queries = queries * self.grid @ self._search_query.T
        logits: Array = self._search.finish(of_nodes[:, None] + of_queries[None])[..., 0]
        return logits

    def search_bound(self) -> float:
        """Return a bound of the errors of :meth:`searched`."""
        both = np.concatenate((self._search.hidden, self._search_query), axis=1)
        whole = Perceptron(both, self._search.hidden_bias, self._search.out, self._search.out_bias)
        return float(whole.bound(np.concatenate((self._most, self._most_query)))[0])

    def outputs(self, leaves: Array) -> tuple[Array, float]:
        """Return the logits of a value's bits ``[leaves, bits]`` that leaves in steps give, and a bound of errors."""
        logits, bound = self._head(leaves * self.grid), self._head.bound(self._most)
        return logits[:, :VALUE_BITS], float(bound[:VALUE_BITS].max())

    def _rounded(self, raw: Array, bound: Any) -> Rounded:
        scaled = raw / self.grid
        nearest = np.rint(scaled)
        slack = (0.5 - np.abs(scaled - nearest)) * self.grid - bound
        return Rounded(nearest.astype(np.int16), slack.min(axis=-1))


def _check_plain(controller: RawHAM) -> None:
    """Raise a ValueError if something other than the package's own modules computes."""
    memory = controller.memory
    parts = memory.embed, memory.join, memory.search, memory.write_leaf, controller.head
    unknown = unknown_part(memory.embed.blank.dtype, *parts) or replaced(memory, "attend", "write", "put")
    if unknown or has_mixed_grids(memory) or memory.embed.real_inputs:
        what = unknown or ("real inputs" if memory.embed.real_inputs else "parts with different grids")
        raise ValueError(f"Expected a memory of the package's own parts, but got {what}: its arithmetic is unknown.")


def _sigmoid(x: Array) -> Array:
    result: Array = 0.5 * (1 + np.tanh(0.5 * x))
    return result


def _array(parameter: Any) -> Array:
    array: Array = parameter.detach().cpu().to(torch.float64).numpy().copy()
    return array


def _bias(layer: nn.Linear) -> Array:
    bias: Any = layer.bias  # None without a bias, unlike its annotation
    return np.zeros(layer.out_features) if bias is None else _array(bias)


def _layer(layer: nn.Linear) -> tuple[Array, Array]:
    return _array(layer.weight), _bias(layer)


def _perceptron(layers: nn.Sequential) -> Perceptron:
    hidden, out = (layer for layer in layers if isinstance(layer, nn.Linear))
    return Perceptron(*_layer(hidden), *_layer(out))
