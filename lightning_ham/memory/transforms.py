"""The four learned transformations of the memory: EMBED, JOIN, SEARCH and WRITE (section 3.1 of the paper).

Under ``torch.autocast`` the products are in half precision, but nodes and logits keep the type of the nodes: what a
leaf holds must not be rounded again whenever it is read, written or passed up the tree.

EMBED, JOIN and WRITE may round every number that they put into a node to multiples of ``grid`` (:func:`on_grid`), so
that nodes take finitely many values. Reals that nodes hold are not rounded.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from lightning_ham.memory.constants import COARSEST_DIFFERENCE, FINEST_DIFFERENCE

JoinKind = Literal["gated", "choice", "mlp"]
"""How JOIN combines two children: ``mlp`` is the paper's, the others are ours."""

LayerWeights = tuple[Tensor, Tensor, Tensor, Tensor]
"""Weight ``[units, inputs]`` and bias ``[units]`` of a hidden layer, then of the output layer."""


def on_grid(nodes: Tensor, grid: float | None, num_reals: int = 0) -> Tensor:
    """Return nodes ``[..., leaf_size]`` rounded to multiples of ``grid``, but for their first ``num_reals`` numbers.

    The gradient is that of the numbers as they were: it goes straight through. With None, nothing is rounded.

    Args:
        nodes: The nodes.
        grid: A power of two, so that a multiple of it is exact, or None; halves are rounded to even multiples.
        num_reals: How many of the first numbers stay as they are.
    """
    if grid is None:
        return nodes
    rounded = torch.round(nodes.detach() / grid) * grid + (nodes - nodes.detach())
    return rounded if num_reals == 0 else torch.cat((nodes[..., :num_reals], rounded[..., num_reals:]), dim=-1)


class Embed(nn.Module):
    """EMBED: an input cell becomes a leaf; a cell without input becomes the learned vector of a blank leaf.

    The leaves are not squashed: real inputs that differ by little must stay far enough apart to be compared.

    Args:
        input_size: Numbers per input cell (b in the paper).
        leaf_size: Numbers per node of the tree (d in the paper).
        hidden_size: Units of the hidden layer.
        real_inputs: How many of the first numbers of a cell are reals in [0, 1] rather than bits. A leaf holds each,
            less 1/2, twice, as the least and the greatest real below it: all least ones first. They pass by the hidden
            layer. A blank leaf starts with a range that no leaf's is in: its least is 1, its greatest -1.
        grid: What leaves are rounded to multiples of, if anything; see :func:`on_grid`.
    """

    def __init__(
        self, input_size: int, leaf_size: int, hidden_size: int, real_inputs: int = 0, grid: float | None = None
    ) -> None:
        super().__init__()
        self.real_inputs, self.grid = real_inputs, grid
        self.mlp = nn.Sequential(
            nn.Linear(input_size - real_inputs, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, leaf_size - 2 * real_inputs),
        )
        self.blank = nn.Parameter(torch.zeros(leaf_size))
        with torch.no_grad():
            self.blank[:real_inputs] = 1.0
            self.blank[real_inputs : 2 * real_inputs] = -1.0

    def forward(self, inputs: Tensor, occupied: Tensor) -> Tensor:
        """Embed ``inputs`` ``[batch, cells, input_size]``; where ``occupied`` ``[batch, cells]`` is False, blank."""
        occupied = occupied.unsqueeze(-1)
        inputs = inputs.masked_fill(~occupied, 0.0)  # or a NaN in a blank cell would reach the gradients
        bits, dtype = inputs[..., self.real_inputs :], self.blank.dtype
        reals = inputs[..., : self.real_inputs].to(dtype) - 0.5
        leaves = torch.cat((reals, reals, self.mlp(bits).to(dtype)), dim=-1)
        return on_grid(torch.where(occupied, leaves, self.blank), self.grid, 2 * self.real_inputs)


def compare(left: Tensor, right: Tensor, count: int) -> Tensor:
    """Return how the first ``count`` numbers of two children differ, ``[..., count]``, on a logarithmic scale.

    ``asinh((left - right) / FINEST_DIFFERENCE) / 2`` is between -8 and 8 for reals in [0, 1], and tells differences of
    1e-6 from 0 as well as those of 0.1. The gradient is that of a scale on which all differences up to
    ``COARSEST_DIFFERENCE`` are alike: that of the finer one grows to 5e6.

    Args:
        left: Left children, ``[..., leaf_size]``.
        right: Right children, shaped as ``left``.
        count: How many numbers are compared.
    """
    difference = left[..., :count] - right[..., :count]
    fine = torch.asinh(difference.detach() / FINEST_DIFFERENCE) / 2
    coarse = torch.asinh(difference / COARSEST_DIFFERENCE) / 2
    return fine + (coarse - coarse.detach())


class MLPJoin(nn.Module):
    """JOIN as the paper has it: a multi-layer perceptron of both children.

    Args:
        leaf_size: Numbers per node (d in the paper).
        hidden_size: Units of the hidden layer.
        num_reals: How many of a node's first numbers are reals: first the least ones below it, then the greatest ones.
            They are not learned: a parent has the least and the greatest of its children's, to the bit. JOIN also sees
            how those of its children compare (:func:`compare`).
        grid: What the other numbers are rounded to multiples of, if anything; see :func:`on_grid`.
    """

    def __init__(self, leaf_size: int, hidden_size: int, num_reals: int = 0, grid: float | None = None) -> None:
        super().__init__()
        self.num_reals, self.grid = num_reals, grid
        self.mlp = nn.Sequential(
            nn.Linear(2 * leaf_size + num_reals, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, leaf_size),
            nn.Tanh(),
        )

    @property
    def layer_weights(self) -> LayerWeights:
        """Of the hidden layer, and of the output layer, ``[leaf_size, hidden_size]``."""
        hidden, out = cast(nn.Linear, self.mlp[0]), cast(nn.Linear, self.mlp[2])
        return hidden.weight, hidden.bias, out.weight, out.bias

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the parents ``[..., leaf_size]`` of ``left`` and ``right``, both ``[..., leaf_size]``."""
        parent = self.mlp(_children(left, right, self.num_reals)).to(left.dtype)
        return _with_range(on_grid(parent, self.grid), left, right, self.num_reals)


class GatedJoin(nn.Module):
    """JOIN as a gated choice, so that a value travels up the tree unchanged however deep the tree is.

    In every dimension the parent is a mixture of the left child, the right child and a candidate computed from both:
    ``side`` chooses between the children, ``new`` between that choice and the candidate. (Not in the paper.)

    Args:
        leaf_size: Numbers per node (d in the paper).
        hidden_size: Units of the hidden layer.
        num_reals: As for :class:`MLPJoin`.
        grid: As for :class:`MLPJoin`.
    """

    def __init__(self, leaf_size: int, hidden_size: int, num_reals: int = 0, grid: float | None = None) -> None:
        super().__init__()
        self.num_reals, self.grid = num_reals, grid
        self.hidden = nn.Linear(2 * leaf_size + num_reals, hidden_size)
        self.out = nn.Linear(hidden_size, 3 * leaf_size)
        with torch.no_grad():
            self.out.bias[leaf_size : 2 * leaf_size] -= 1.0  # at first a parent mostly copies from its children

    @property
    def layer_weights(self) -> LayerWeights:
        """Of the hidden layer, and of the output layer, ``[3 * leaf_size, hidden_size]``: side, new, candidate."""
        return self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the parents ``[..., leaf_size]`` of ``left`` and ``right``, both ``[..., leaf_size]``."""
        size = left.shape[-1]
        hidden = torch.relu(self.hidden(_children(left, right, self.num_reals)))
        side, new, candidate = self.out(hidden).to(left.dtype).split(size, dim=-1)
        parent = _choose(left, right, side, new, candidate)
        return _with_range(on_grid(parent, self.grid), left, right, self.num_reals)


class ChoiceJoin(nn.Module):
    """JOIN as a gated choice of one child as a whole: as :class:`GatedJoin`, but all dimensions share one ``side``.

    What is to be handed up is then one child's, and not a blend of both, which is less and less like either the higher
    comes. For tasks in which a part of the tree is asked for one of its leaves, as for the least. (Not in the paper.)

    Args:
        leaf_size: Numbers per node (d in the paper).
        hidden_size: Units of the hidden layer.
        num_reals: As for :class:`MLPJoin`.
        grid: As for :class:`MLPJoin`.
    """

    def __init__(self, leaf_size: int, hidden_size: int, num_reals: int = 0, grid: float | None = None) -> None:
        super().__init__()
        self.num_reals, self.grid = num_reals, grid
        self.hidden = nn.Linear(2 * leaf_size + num_reals, hidden_size)
        self.out = nn.Linear(hidden_size, 1 + 2 * leaf_size)
        self.sharpness = leaf_size**0.5  # so an update moves the shared gate as far as it would as many gates together
        with torch.no_grad():
            self.out.weight[0] /= self.sharpness
            self.out.bias[0] /= self.sharpness
            self.out.bias[1 : 1 + leaf_size] -= 3.0  # at first a parent copies; with -1, some trainings keep blending

    @property
    def layer_weights(self) -> LayerWeights:
        """Those of a :class:`GatedJoin` that does the same."""
        size = self.out.out_features // 2
        sides = (self.sharpness * parameter[:1] for parameter in (self.out.weight, self.out.bias))
        weight, bias = (side.expand(size, *side.shape[1:]) for side in sides)
        out = torch.cat((weight, self.out.weight[1:])), torch.cat((bias, self.out.bias[1:]))
        return self.hidden.weight, self.hidden.bias, *out

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the parents ``[..., leaf_size]`` of ``left`` and ``right``, both ``[..., leaf_size]``."""
        size = left.shape[-1]
        hidden = torch.relu(self.hidden(_children(left, right, self.num_reals)))
        side, new, candidate = self.out(hidden).to(left.dtype).split((1, size, size), dim=-1)
        parent = _choose(left, right, self.sharpness * side, new, candidate)
        return _with_range(on_grid(parent, self.grid), left, right, self.num_reals)


def _children(left: Tensor, right: Tensor, num_reals: int) -> Tensor:
    """Return what JOIN computes a parent from: both children side by side, and how their reals compare."""
    parts = (left, right, compare(left, right, num_reals)) if num_reals else (left, right)
    return torch.cat(parts, dim=-1)


def _choose(left: Tensor, right: Tensor, side: Tensor, new: Tensor, candidate: Tensor) -> Tensor:
    """Choose between the children by the logits ``side``, and between that and a new value by the logits ``new``."""
    chosen = torch.lerp(left, right, torch.sigmoid(side))
    return torch.lerp(chosen, torch.tanh(candidate), torch.sigmoid(new))


def _with_range(parent: Tensor, left: Tensor, right: Tensor, num_reals: int) -> Tensor:
    """Return ``parent`` with the least and the greatest of both children's reals in the place of its own."""
    if not num_reals:
        return parent
    (least, greatest), (other_least, other_greatest) = (
        child[..., :num_reals].chunk(2, dim=-1) for child in (left, right)
    )
    least = torch.where(least <= other_least, least, other_least)  # of equal ones, the left one has the gradient
    greatest = torch.where(greatest >= other_greatest, greatest, other_greatest)
    return torch.cat((least, greatest, parent[..., num_reals:]), dim=-1)


Join = GatedJoin | ChoiceJoin | MLPJoin


def make_join(kind: JoinKind, leaf_size: int, hidden_size: int, num_reals: int = 0, grid: float | None = None) -> Join:
    """Return the JOIN called ``kind``, such as :class:`GatedJoin` for ``gated``."""
    joins: dict[str, type[Join]] = {"gated": GatedJoin, "choice": ChoiceJoin, "mlp": MLPJoin}
    if kind not in joins:
        raise ValueError(f"Expected argument `join` to be one of {get_args(JoinKind)}, but got {kind!r}.")
    return joins[kind](leaf_size, hidden_size, num_reals, grid)


class Search(nn.Module):
    """SEARCH: how much the controller, standing at a node, wants to go right (as a logit).

    Args:
        leaf_size: Numbers per node (d in the paper).
        query_size: Numbers in the controller's state (l in the paper).
        hidden_size: Units of the hidden layer.
    """

    def __init__(self, leaf_size: int, query_size: int, hidden_size: int) -> None:
        super().__init__()
        self.node = nn.Linear(leaf_size, hidden_size)
        self.query = nn.Linear(query_size, hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, 1)

    def forward(self, nodes: Tensor, query: Tensor) -> Tensor:
        """Return the logits ``[batch, nodes]`` of going right.

        Args:
            nodes: The nodes where the descent stands, ``[batch, nodes, leaf_size]``.
            query: The controller's state, ``[batch, query_size]``.
        """
        hidden = torch.relu(self.node(nodes) + self.query(query).unsqueeze(-2))
        return self.out(hidden).squeeze(-1).to(nodes.dtype)


class Write(nn.Module):
    """WRITE: a gate T decides, in every dimension, between the leaf as it is and a new value H.

    ``WRITE(h_a, h) = T(h_a, h) * H(h_a, h) + (1 - T(h_a, h)) * h_a``.

    Args:
        leaf_size: Numbers per node (d in the paper).
        query_size: Numbers in the controller's state (l in the paper).
        real_inputs: Of how many reals a leaf's first numbers are the range. At first a write gives it a range like that
            of a blank leaf, which no other leaf's is in.
        grid: What leaves are rounded to multiples of, if anything; see :func:`on_grid`.
    """

    def __init__(self, leaf_size: int, query_size: int, real_inputs: int = 0, grid: float | None = None) -> None:
        super().__init__()
        self.real_inputs, self.grid = real_inputs, grid
        self.leaf = nn.Linear(leaf_size, 2 * leaf_size)
        self.query = nn.Linear(query_size, 2 * leaf_size, bias=False)
        with torch.no_grad():
            gate, value = self.leaf.bias.chunk(2)
            gate[: 2 * real_inputs] += 2.0
            value[:real_inputs] += 2.0
            value[real_inputs : 2 * real_inputs] -= 2.0

    def forward(self, leaves: Tensor, query: Tensor) -> Tensor:
        """Return the new leaves, shaped as ``leaves``.

        Args:
            leaves: ``[batch, leaf_size]``, or ``[batch, leaves, leaf_size]`` where several are written.
            query: The controller's state, ``[batch, query_size]``.
        """
        controlled = self.query(query)
        if leaves.dim() == 3:
            controlled = controlled.unsqueeze(1)
        gate, value = (self.leaf(leaves) + controlled).to(leaves.dtype).chunk(2, dim=-1)
        written = torch.lerp(leaves, torch.tanh(value), torch.sigmoid(gate))
        return on_grid(written, self.grid, 2 * self.real_inputs)
