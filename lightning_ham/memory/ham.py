"""One access to the memory: attend, read, write, re-join."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ham.memory.attention import (
    AttentionMode,
    check_mode,
    descend,
    leaf_probabilities,
    straight_through_read,
)
from lightning_ham.memory.transforms import Embed, JoinKind, Search, Write, make_join
from lightning_ham.memory.tree import Tree, build, gather_rows, path_rows, rejoin_path, replace_rows


class Access(NamedTuple):
    """What one descent found, and what :meth:`HierarchicalAttentiveMemory.write` needs to change it."""

    read: Tensor
    """The value read, ``[batch, leaf_size]``: the attended leaf, or the weighted sum of all for ``soft``."""
    leaf: Tensor
    """Index of the attended leaf from 0 on the left, ``[batch]``; the most probable one for ``soft``."""
    logits: Tensor
    """SEARCH along the path to that leaf, ``[batch, depth]``: sigmoid of it is the probability of going right."""
    nodes: Tensor
    """The path from the root to the leaf, then the siblings beside it, ``[batch, 2 * depth + 1, leaf_size]``."""
    weights: Tensor
    """Probability of every leaf, ``[batch, num_leaves]``, for ``soft``; ``[batch, 0]`` for the hard modes."""

    @property
    def went_right(self) -> Tensor:
        """Whether the descent went right at each level, ``[batch, depth]`` of 0 and 1."""
        depth = self.logits.shape[1]
        shifts = torch.arange(depth - 1, -1, -1, device=self.leaf.device)
        return (self.leaf.unsqueeze(1) >> shifts) & 1

    @property
    def log_prob(self) -> Tensor:
        """Log-probability of the branches taken, ``[batch]``."""
        signs = 2 * self.went_right.to(self.logits.dtype) - 1
        return F.logsigmoid(signs * self.logits).sum(dim=1)

    @property
    def entropy(self) -> Tensor:
        """Entropy in nats, ``[batch]``: of the branches on the path, summed over its levels.

        Over sampled paths its mean is the entropy of the choice of a leaf, which is what it is for ``soft``.
        """
        if self.weights.shape[1]:
            return torch.special.entr(self.weights).sum(dim=1)
        size = self.logits.abs()
        return (F.softplus(-size) + size * torch.sigmoid(-size)).sum(dim=1)


class HierarchicalAttentiveMemory(nn.Module):
    """A binary-tree memory with attention in O(log n): arXiv 1602.03218, section 3.

    The state is a :class:`Tree` that goes in and comes out; the module holds parameters only, so one memory serves
    trees of any size. One access is ``access = memory.attend(tree, query)``, then
    ``tree = memory.write(tree, access, query)``.

    Args:
        input_size: Numbers per input cell (b in the paper).
        query_size: Numbers in the controller's state (l in the paper).
        leaf_size: Numbers per node of the tree (d in the paper).
        hidden_size: Units in the hidden layer of EMBED, JOIN and SEARCH; ``leaf_size`` if not given.
        join: ``gated`` (a choice between the children, the default) or ``mlp`` (the paper's).
        temperature: Of the relaxed branches of ``straight_through``.
        real_inputs: How many of the first numbers of a cell are reals in [0, 1] rather than bits.
    """

    def __init__(
        self,
        input_size: int,
        query_size: int,
        leaf_size: int = 32,
        hidden_size: int | None = None,
        join: JoinKind = "gated",
        temperature: float = 1.0,
        real_inputs: int = 0,
    ) -> None:
        super().__init__()
        sizes = {
            "input_size": input_size,
            "query_size": query_size,
            "leaf_size": leaf_size,
            "hidden_size": hidden_size,
        }
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"Expected argument `{name}` to be at least 1, but got {size}.")
        if not 0 <= real_inputs <= input_size:
            raise ValueError(
                f"Expected argument `real_inputs` to be between 0 and `input_size` ({input_size}), "
                f"but got {real_inputs}."
            )
        if not temperature > 0:
            raise ValueError(f"Expected argument `temperature` to be positive, but got {temperature}.")
        hidden = hidden_size or leaf_size
        self.leaf_size = leaf_size
        self.temperature = temperature
        self.embed = Embed(input_size, leaf_size, hidden, real_inputs)
        self.join = make_join(join, leaf_size, hidden)
        self.search = Search(leaf_size, query_size, hidden)
        self.write_leaf = Write(leaf_size, query_size)

    def init(self, inputs: Tensor, occupied: Tensor | None = None) -> Tree:
        """Fill the leaves with embedded inputs and join them bottom-up.

        Args:
            inputs: One input per leaf, ``[batch, num_leaves, input_size]``; ``num_leaves`` is a power of two.
            occupied: Which leaves hold an input, ``[batch, num_leaves]``; the others become blank. All, if not given.
        """
        if occupied is None:
            occupied = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        return build(self.embed(inputs, occupied), self.join)

    def attend(
        self,
        tree: Tree,
        query: Tensor,
        attention: AttentionMode = "argmax",
        generator: torch.Generator | None = None,
    ) -> Access:
        """Descend to a leaf and read it.

        Args:
            tree: The memory's state.
            query: The controller's state, ``[batch, query_size]``.
            attention: ``reinforce``, ``straight_through`` or ``soft`` for training, ``argmax`` for evaluation.
            generator: Source of the samples; torch's global one if not given.
        """
        check_mode(attention)
        if attention == "soft":
            return self._attend_softly(tree, query)
        depth = tree.depth
        descent = descend(tree, query, self.search, attention, generator)
        rows = path_rows(descent.leaf_rows, depth)
        nodes = gather_rows(tree, torch.cat((rows, rows[:, 1:] ^ 1), dim=1))
        logits = self.search(nodes[:, :depth], query)
        read = nodes[:, depth]
        if attention == "straight_through":
            with torch.no_grad():
                counterfactual_leaves = gather_rows(tree, descent.counterfactual_rows)
            read = straight_through_read(read, counterfactual_leaves, logits, descent.noise, self.temperature)
        return Access(read, descent.leaf_rows - tree.num_leaves, logits, nodes, logits.new_zeros(len(query), 0))

    def _attend_softly(self, tree: Tree, query: Tensor) -> Access:
        weights, node_logits = leaf_probabilities(tree, query, self.search)
        read = (weights.unsqueeze(1) @ tree.leaves).squeeze(1)
        leaf = weights.argmax(dim=1)
        rows = path_rows(leaf + tree.num_leaves, tree.depth)
        logits = node_logits.gather(1, rows[:, : tree.depth])
        return Access(read, leaf, logits, gather_rows(tree, torch.cat((rows, rows[:, 1:] ^ 1), dim=1)), weights)

    def write(self, tree: Tree, access: Access, query: Tensor, *, in_place: bool = False) -> Tree:
        """Write to the attended leaf and re-join its ancestors (every leaf, by its weight, for ``soft``).

        Args:
            tree: The state that ``access`` was read from.
            access: What :meth:`attend` returned.
            query: The controller's state after it has seen the read value, ``[batch, query_size]``.
            in_place: Overwrite ``tree`` instead of copying it: O(log n), only where no gradient is needed.
        """
        if access.weights.shape[1]:
            weights = access.weights.unsqueeze(-1)
            return build(torch.lerp(tree.leaves, self.write_leaf(tree.leaves, query), weights), self.join)
        depth = tree.depth
        rows = path_rows(access.leaf + tree.num_leaves, depth)
        leaf = self.write_leaf(access.nodes[:, depth], query)
        path = rejoin_path(rows, leaf, access.nodes[:, depth + 1 :], self.join)
        return replace_rows(tree, rows, path, in_place=in_place)
