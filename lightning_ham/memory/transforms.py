"""The four learned transformations of the memory: EMBED, JOIN, SEARCH and WRITE (section 3.1 of the paper).

Under ``torch.autocast`` matrix products run in half precision. Nodes and logits keep the nodes' type, so that reads,
writes and JOINs do not round a leaf again and again.

EMBED, JOIN and WRITE may round nodes to multiples of ``grid`` (:func:`on_grid`), so that nodes hold discrete values.
Reals in nodes are not rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from lightning_ham.arguments import expect_one_of
from lightning_ham.memory.constants import COARSEST_DIFFERENCE, FINEST_DIFFERENCE
from lightning_ham.registry import Registry

LayerWeights = tuple[Tensor, Tensor, Tensor, Tensor]
"""Weight ``[units, inputs]`` and bias ``[units]`` of a hidden layer, then of the output layer."""


def on_grid(nodes: Tensor, grid: float | None, num_reals: int = 0) -> Tensor:
    """Round nodes ``[..., leaf_size]`` to multiples of ``grid``, except their first ``num_reals`` numbers.

    The gradient passes straight through, as if nothing were rounded.

    Args:
        nodes: The nodes.
        grid: A power of two, so that multiples are exact; halves are rounded to even multiples. None: do not round.
        num_reals: How many of the first numbers stay unchanged.
    """
    if grid is None:
        return nodes
    rounded = torch.round(nodes.detach() / grid) * grid + (nodes - nodes.detach())
    return rounded if num_reals == 0 else torch.cat((nodes[..., :num_reals], rounded[..., num_reals:]), dim=-1)


class Embed(nn.Module):
    """EMBED: an input cell becomes a leaf; a cell without input becomes the learned vector of a blank leaf.

    Leaves are not squashed: close real inputs must stay far enough apart to be compared.

    Args:
        input_size: Numbers per input cell (b in the paper).
        leaf_size: Numbers per node of the tree (d in the paper).
        hidden_size: Units of the hidden layer.
        real_inputs: How many of the first numbers of a cell are reals in [0, 1] rather than bits. They bypass the
            hidden layer: minus 1/2, they become a leaf's first numbers twice, as minima and as maxima of ranges. The
            ranges of a blank leaf are empty at first: their minimum is 1, their maximum -1.
        grid: Round leaves to multiples of this; None: do not round. See :func:`on_grid`.
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
        """Return leaves of ``inputs`` ``[batch, cells, input_size]``, blank if not ``occupied`` ``[batch, cells]``."""
        occupied = occupied.unsqueeze(-1)
        inputs = inputs.masked_fill(~occupied, 0.0)  # else a NaN in a blank cell reaches the gradients
        bits, dtype = inputs[..., self.real_inputs :], self.blank.dtype
        leaves = self.mlp(bits).to(dtype)
        if self.real_inputs:
            reals = inputs[..., : self.real_inputs].to(dtype) - 0.5
            leaves = torch.cat((reals, reals, leaves), dim=-1)
        return on_grid(torch.where(occupied, leaves, self.blank), self.grid, 2 * self.real_inputs)


def compare(left: Tensor, right: Tensor, count: int) -> Tensor:
    """Return the differences of two children's first ``count`` numbers, ``[..., count]``, on a logarithmic scale.

    ``asinh((left - right) / FINEST_DIFFERENCE) / 2`` is between -8.5 and 8.5 for reals in [0, 1], and resolves
    differences of 1e-6 as well as of 0.1. The gradient is that of the same formula with ``COARSEST_DIFFERENCE``, as
    the fine one's grows to 5e6.

    Args:
        left: Left children, ``[..., leaf_size]``.
        right: Right children, shaped as ``left``.
        count: How many numbers to compare.
    """
    difference = left[..., :count] - right[..., :count]
    fine = torch.asinh(difference.detach() / FINEST_DIFFERENCE) / 2
    coarse = torch.asinh(difference / COARSEST_DIFFERENCE) / 2
    return fine + (coarse - coarse.detach())


class Join(nn.Module):
    """The base of JOINs: combines two children into their parent.

    A subclass defines ``forward``, with :func:`join_input` for its input and :func:`join_output` for its result.
    Another package registers one by an entry point of the group ``lightning_ham.joins``; compiled loops do not know
    it.

    Args:
        leaf_size: Numbers per node (d in the paper).
        hidden_size: Units of the hidden layer, if there is one.
        num_reals: How many of a node's first numbers are reals: the minima below it, then the maxima. A parent's are
            computed exactly from its children's, not learned. JOIN also sees the differences of the children's reals
            (:func:`compare`).
        grid: Round the other numbers to multiples of this; None: do not round. See :func:`on_grid`.
    """

    def __init__(self, leaf_size: int, hidden_size: int, num_reals: int = 0, grid: float | None = None) -> None:
        super().__init__()
        self.num_reals, self.grid = num_reals, grid

    @property
    def layer_weights(self) -> LayerWeights:
        """Parameters of the hidden layer and the output layer, for compiled loops."""
        raise NotImplementedError(f"Expected a JOIN that compiled loops know, but got {type(self).__name__}.")

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the parents ``[..., leaf_size]`` of ``left`` and ``right``, both ``[..., leaf_size]``."""
        raise NotImplementedError(f"Expected {type(self).__name__} to define `forward`.")


class MLPJoin(Join):
    """JOIN of the paper: a multi-layer perceptron on both children.

    Args: those of :class:`Join`.
    """

    def __init__(self, leaf_size: int, hidden_size: int, num_reals: int = 0, grid: float | None = None) -> None:
        super().__init__(leaf_size, hidden_size, num_reals, grid)
        self.mlp = nn.Sequential(
            nn.Linear(2 * leaf_size + num_reals, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, leaf_size),
            nn.Tanh(),
        )

    @property
    def layer_weights(self) -> LayerWeights:
        """Parameters of the hidden layer and the output layer, whose weight is ``[leaf_size, hidden_size]``."""
        hidden, out = cast(nn.Linear, self.mlp[0]), cast(nn.Linear, self.mlp[2])
        return hidden.weight, hidden.bias, out.weight, out.bias

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the parents ``[..., leaf_size]`` of ``left`` and ``right``, both ``[..., leaf_size]``."""
        parent = self.mlp(join_input(left, right, self.num_reals)).to(left.dtype)
        return join_output(parent, left, right, self.num_reals, self.grid)


class GatedJoin(Join):
    """JOIN with gates, which can pass a value unchanged up a tree of any depth.

    In every dimension, the gate ``side`` mixes the two children, and the gate ``new`` mixes the result with a candidate
    computed from both. (Not in the paper.)

    Args: those of :class:`Join`.
    """

    def __init__(self, leaf_size: int, hidden_size: int, num_reals: int = 0, grid: float | None = None) -> None:
        super().__init__(leaf_size, hidden_size, num_reals, grid)
        self.hidden = nn.Linear(2 * leaf_size + num_reals, hidden_size)
        self.out = nn.Linear(hidden_size, 3 * leaf_size)
        with torch.no_grad():
            self.out.bias[leaf_size : 2 * leaf_size] -= 1.0  # at first a parent mostly copies from its children

    @property
    def layer_weights(self) -> LayerWeights:
        """Parameters of the hidden and the output layer: ``[3 * leaf_size, hidden_size]``, side, new and candidate."""
        return self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the parents ``[..., leaf_size]`` of ``left`` and ``right``, both ``[..., leaf_size]``."""
        size = left.shape[-1]
        hidden = torch.relu(self.hidden(join_input(left, right, self.num_reals)))
        side, new, candidate = self.out(hidden).to(left.dtype).split(size, dim=-1)
        parent = _choose(left, right, side, new, candidate)
        return join_output(parent, left, right, self.num_reals, self.grid)


class ChoiceJoin(Join):
    """JOIN that chooses between whole children: a :class:`GatedJoin` in which all dimensions share one ``side``.

    A parent then copies from one child rather than from both; blends of both resemble a leaf less and less towards the
    root. For tasks that look for one leaf of a subtree, such as the least. (Not in the paper.)

    Args: those of :class:`Join`.
    """

    def __init__(self, leaf_size: int, hidden_size: int, num_reals: int = 0, grid: float | None = None) -> None:
        super().__init__(leaf_size, hidden_size, num_reals, grid)
        self.hidden = nn.Linear(2 * leaf_size + num_reals, hidden_size)
        self.out = nn.Linear(hidden_size, 1 + 2 * leaf_size)
        self.sharpness = leaf_size**0.5  # so an update moves the one gate as far as `leaf_size` gates together
        with torch.no_grad():
            self.out.weight[0] /= self.sharpness
            self.out.bias[0] /= self.sharpness
            self.out.bias[1 : 1 + leaf_size] -= 3.0  # at first a parent copies; with -1, some trainings keep blending

    @property
    def layer_weights(self) -> LayerWeights:
        """Parameters of the equivalent :class:`GatedJoin`."""
        size = self.out.out_features // 2
        sides = (self.sharpness * parameter[:1] for parameter in (self.out.weight, self.out.bias))
        weight, bias = (side.expand(size, *side.shape[1:]) for side in sides)
        out = torch.cat((weight, self.out.weight[1:])), torch.cat((bias, self.out.bias[1:]))
        return self.hidden.weight, self.hidden.bias, *out

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the parents ``[..., leaf_size]`` of ``left`` and ``right``, both ``[..., leaf_size]``."""
        size = left.shape[-1]
        hidden = torch.relu(self.hidden(join_input(left, right, self.num_reals)))
        side, new, candidate = self.out(hidden).to(left.dtype).split((1, size, size), dim=-1)
        parent = _choose(left, right, self.sharpness * side, new, candidate)
        return join_output(parent, left, right, self.num_reals, self.grid)


def join_input(left: Tensor, right: Tensor, num_reals: int) -> Tensor:
    """Return what JOIN sees: both children, then the differences of their reals (:func:`compare`).

    Args:
        left: Left children, ``[..., leaf_size]``.
        right: Right children, shaped as ``left``.
        num_reals: How many of a node's first numbers are reals.

    Returns:
        ``[..., 2 * leaf_size + num_reals]``.
    """
    parts = (left, right, compare(left, right, num_reals)) if num_reals else (left, right)
    return torch.cat(parts, dim=-1)


def _choose(left: Tensor, right: Tensor, side: Tensor, new: Tensor, candidate: Tensor) -> Tensor:
    """Mix the children by the logits ``side``, then the result with tanh of ``candidate`` by the logits ``new``."""
    chosen = torch.lerp(left, right, torch.sigmoid(side))
    return torch.lerp(chosen, torch.tanh(candidate), torch.sigmoid(new))


def join_output(parent: Tensor, left: Tensor, right: Tensor, num_reals: int, grid: float | None) -> Tensor:
    """Return ``parent`` on the grid, with its reals replaced by the minima and maxima of both children's.

    Args:
        parent: What JOIN computed, ``[..., leaf_size]``.
        left: Left children, shaped as ``parent``.
        right: Right children, shaped as ``parent``.
        num_reals: How many of a node's first numbers are reals.
        grid: As for :func:`on_grid`.
    """
    parent = on_grid(parent, grid)
    if not num_reals:
        return parent
    (least, greatest), (other_least, other_greatest) = (
        child[..., :num_reals].chunk(2, dim=-1) for child in (left, right)
    )
    least = torch.where(least <= other_least, least, other_least)  # in a tie, the left one gets the gradient
    greatest = torch.where(greatest >= other_greatest, greatest, other_greatest)
    return torch.cat((least, greatest, parent[..., num_reals:]), dim=-1)


_BUILT_IN: dict[str, type[Join]] = {"gated": GatedJoin, "choice": ChoiceJoin, "mlp": MLPJoin}
_JOINS: Registry[type[Join]] = Registry("JOIN", _BUILT_IN, group="lightning_ham.joins", base=Join)


def join_kinds() -> list[str]:
    """Return the names of all JOINs: the built-in ones first, then those of other packages in their order."""
    return [*_BUILT_IN, *(name for name in _JOINS.names() if name not in _BUILT_IN)]


if TYPE_CHECKING:
    JoinKind = str
else:
    JoinKind = Literal[tuple(join_kinds())]
"""How JOIN combines two children: ``mlp`` is the paper's, ``gated`` and ``choice`` are ours, and other packages may
register more; see :func:`join_kinds`."""


def make_join(kind: JoinKind, leaf_size: int, hidden_size: int, num_reals: int = 0, grid: float | None = None) -> Join:
    """Return the JOIN called ``kind``, such as :class:`GatedJoin` for ``gated``.

    Raises:
        ValueError: If there is none.
        PluginError: If another package provides it and cannot be loaded.
    """
    if kind not in _BUILT_IN:
        expect_one_of("join", kind, join_kinds())
    join: Join = _JOINS.make(kind, leaf_size, hidden_size, num_reals, grid)
    return join


class Search(nn.Module):
    """SEARCH: the logit of going right at a node.

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
            nodes: The current nodes of the descent, ``[batch, nodes, leaf_size]``.
            query: The controller's state, ``[batch, query_size]``.
        """
        hidden = torch.relu(self.node(nodes) + self.query(query).unsqueeze(-2))
        return self.out(hidden).squeeze(-1).to(nodes.dtype)


class Write(nn.Module):
    """WRITE: in every dimension, a gate T mixes the old leaf with a new value H.

    ``WRITE(h_a, h) = T(h_a, h) * H(h_a, h) + (1 - T(h_a, h)) * h_a``.

    Args:
        leaf_size: Numbers per node (d in the paper).
        query_size: Numbers in the controller's state (l in the paper).
        real_inputs: How many ranges of reals a leaf begins with. Before training, a write moves them towards the empty
            range of a blank leaf.
        grid: Round leaves to multiples of this; None: do not round. See :func:`on_grid`.
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
            leaves: ``[batch, leaf_size]``, or ``[batch, leaves, leaf_size]`` to write several.
            query: The controller's state, ``[batch, query_size]``.
        """
        controlled = self.query(query)
        if leaves.dim() == 3:
            controlled = controlled.unsqueeze(1)
        gate, value = (self.leaf(leaves) + controlled).to(leaves.dtype).chunk(2, dim=-1)
        written = torch.lerp(leaves, torch.tanh(value), torch.sigmoid(gate))
        return on_grid(written, self.grid, 2 * self.real_inputs)
