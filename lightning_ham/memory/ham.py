"""One access to the memory: attend, read, write, re-join."""

from __future__ import annotations

from typing import NamedTuple, SupportsIndex

import torch
from torch import Tensor, nn

from lightning_ham.arguments import expect_integer, expect_number
from lightning_ham.memory import fused
from lightning_ham.memory.arguments import ArgumentError, expect_kind, expect_tensor
from lightning_ham.memory.attention import (
    COUNTERFACTUAL_MODES,
    PLACE_SHARE,
    AttentionMode,
    check_mode,
    descend,
    draw_noise,
    forcing_noise,
    leaf_probabilities,
    path_entropy,
    path_log_prob,
    straight_through_read,
    straight_through_weights,
    went_right,
)
from lightning_ham.memory.engine import Engine, check_engine
from lightning_ham.memory.transforms import Embed, JoinKind, Search, Write, make_join
from lightning_ham.memory.tree import (
    Tree,
    build,
    check_num_leaves,
    gather_rows,
    path_rows,
    rejoin_path,
    rejoin_paths,
    replace_rows,
)


class Access(NamedTuple):
    """What one descent found, and what :meth:`HierarchicalAttentiveMemory.write` needs to change it."""

    read: Tensor
    """The value read, ``[batch, leaf_size]``: the attended leaf, or the weighted sum of all for ``soft``."""
    leaf: Tensor
    """Index of the attended leaf from 0 on the left, ``[batch]``; the most probable one for ``soft``."""
    logits: Tensor
    """SEARCH along the path to that leaf, ``[batch, depth]``: sigmoid of it is the probability of going right."""
    path: Tensor
    """The nodes from the root to the leaf, ``[batch, depth + 1, leaf_size]``."""
    siblings: Tensor
    """The nodes beside them, from the level below the root to the leaves, ``[batch, depth, leaf_size]``."""
    weights: Tensor
    """How much is written: for ``soft`` to every leaf, ``[batch, num_leaves]``; for ``straight_through_write`` to the
    attended leaf and to ``others``, 1 and 0 with a gradient, ``[batch, depth + 1]``; else ``[batch, 0]``."""
    tree: Tree
    """The memory's state, which :meth:`HierarchicalAttentiveMemory.write` changes."""
    others: Tensor | None = None
    """For ``straight_through_write``, heap rows of leaves that could have been written instead, ``[batch, depth]``."""
    query_share: float = 1.0
    """Share of WRITE's gradient that goes on to the query; see :attr:`HierarchicalAttentiveMemory.query_share`."""

    @property
    def log_prob(self) -> Tensor:
        """Log-probability of the branches taken, ``[batch]``."""
        return path_log_prob(self.logits, self.leaf)

    @property
    def entropy(self) -> Tensor:
        """Entropy in nats, ``[batch]``: of the branches on the path, summed over its levels.

        Over sampled paths its mean is the entropy of the choice of a leaf, which is what it is for ``soft``.
        """
        if self.weights.shape[1] and self.others is None:
            return torch.special.entr(self.weights).sum(dim=1)
        return path_entropy(self.logits)


class HierarchicalAttentiveMemory(nn.Module):
    """A binary-tree memory with attention in O(log n): arXiv 1602.03218, section 3.

    The state is a :class:`Tree` that goes in and comes out; the module holds parameters only, so one memory serves
    trees of any size. One access is ``access = memory.attend(tree, query)``, then
    ``tree = memory.write(access, query)``.

    Args:
        input_size: Numbers per input cell (b in the paper).
        query_size: Numbers in the controller's state (l in the paper).
        leaf_size: Numbers per node of the tree (d in the paper).
        hidden_size: Units in the hidden layer of EMBED, JOIN and SEARCH; ``leaf_size`` if not given.
        join: ``gated`` (a choice between the children in every dimension, the default), ``choice`` (one for all
            dimensions) or ``mlp`` (the paper's).
        temperature: Of the relaxed branches of ``straight_through`` and ``straight_through_write``.
        real_inputs: How many of the first numbers of a cell are reals in [0, 1] rather than bits. Of each, every node
            holds the least and the greatest below it, as JOIN chooses them; JOIN compares them on a logarithmic scale,
            and hands them up to the bit.
        engine: Which implementation runs whole episodes; it changes the speed, not the numbers.
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
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        sizes = {
            "input_size": input_size,
            "query_size": query_size,
            "leaf_size": leaf_size,
            "hidden_size": hidden_size,
        }
        for name, size in sizes.items():
            if size is not None:
                expect_integer(name, size, at_least=1)
        expect_integer("real_inputs", real_inputs)
        if not 0 <= real_inputs <= min(input_size, (min(leaf_size, hidden_size or leaf_size) - 1) // 4):
            raise ValueError(
                f"Expected argument `real_inputs` to be between 0 and `input_size` ({input_size}), and below a quarter "
                f"of `leaf_size` ({leaf_size}) and `hidden_size` ({hidden_size or leaf_size}), but got {real_inputs}."
            )
        expect_number("temperature", temperature, above=0)
        check_engine(engine)
        self.engine = engine
        self.noise = 1.0
        """Scale of the noise with which the straight-through modes sample branches."""
        self.query_share = 1.0
        """Share of the gradients of SEARCH and WRITE that goes on to the query in straight-through modes, in [0, 1].

        What is read depends on the queries, and the next query on what was read: straight-through sends the gradient
        around this loop once for every access of an episode, directly (by SEARCH) and through the tree (by WRITE).
        Where its gain is above 1, the gradient grows from access to access, and trainings break up. With 0, SEARCH and
        WRITE learn what to do with queries as they are."""
        self.cell_noise = 0.0
        """Standard deviation of the noise that :meth:`embed_cells` adds in training."""
        hidden = hidden_size or leaf_size
        self.input_size = input_size
        self.query_size = query_size
        self.leaf_size = leaf_size
        self.temperature = temperature
        self.embed = Embed(input_size, leaf_size, hidden, real_inputs)
        self.join = make_join(join, leaf_size, hidden, 2 * real_inputs)
        self.search = Search(leaf_size, query_size, hidden)
        self.write_leaf = Write(leaf_size, query_size, real_inputs)

    def init(self, inputs: Tensor, occupied: Tensor | None = None) -> Tree:
        """Fill the leaves with embedded inputs and join them bottom-up.

        Args:
            inputs: One input per leaf, ``[batch, num_leaves, input_size]``; ``num_leaves`` is a power of two.
            occupied: Which leaves hold an input, ``[batch, num_leaves]``; the others become blank. All, if not given.

        Raises:
            ValueError: If the inputs are not so many and so wide.
        """
        occupied = self._check_cells(inputs, occupied, "num_leaves")
        check_num_leaves(inputs.shape[1])
        return build(self.embed(inputs, occupied), self.join)

    def embed_cells(self, inputs: Tensor, occupied: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Embed cells, blank where not ``occupied``; in training, with Gaussian noise of deviation ``cell_noise``.

        JOIN then has to put right what is not quite a value that it knows, so that no errors add up on the way to the
        root, however deep the tree is.

        Args:
            inputs: ``[batch, cells, input_size]``.
            occupied: Which cells hold an input, ``[batch, cells]``.
            generator: Source of the noise; torch's global one if not given.

        Returns:
            ``[batch, cells, leaf_size]``.

        Raises:
            ValueError: If the cells are not so wide.
        """
        self._check_cells(inputs, occupied, "cells")
        leaves: Tensor = self.embed(inputs, occupied)
        if not (self.training and self.cell_noise > 0):
            return leaves
        noise = torch.randn(leaves.shape, dtype=leaves.dtype, device=leaves.device, generator=generator)
        return leaves + self.cell_noise * noise

    def init_blank(self, batch: int, num_leaves: int) -> Tree:
        """Return trees whose leaves are all blank; ``num_leaves`` is a power of two.

        In such a tree all nodes of a level are equal, so this takes log n JOINs.

        Raises:
            ValueError: If there is no such tree.
        """
        for name, number in {"batch": batch, "num_leaves": num_leaves}.items():
            if isinstance(number, bool) or not isinstance(number, SupportsIndex):
                raise ArgumentError(f"Expected argument `{name}` to be a whole number, but got {number!r}.")
        if batch < 0:
            raise ArgumentError(f"Expected argument `batch` to be at least 0, but got {batch}.")
        check_num_leaves(num_leaves)
        levels = [self.embed.blank]
        while 1 << len(levels) <= num_leaves:
            levels.append(self.join(levels[-1], levels[-1]))
        unused = torch.zeros_like(self.embed.blank).unsqueeze(0)
        rows = [level.expand(1 << depth, -1) for depth, level in enumerate(reversed(levels))]
        return Tree(torch.cat((unused, *rows)).expand(batch, -1, -1).contiguous())

    def attend(
        self,
        tree: Tree,
        query: Tensor,
        attention: AttentionMode = "argmax",
        generator: torch.Generator | None = None,
        guide: Tensor | None = None,
    ) -> Access:
        """Descend to a leaf and read it.

        Args:
            tree: The memory's state.
            query: The controller's state, ``[batch, query_size]``.
            attention: ``argmax`` for evaluation, any other mode for training.
            generator: Source of the samples; torch's global one if not given.
            guide: Index of the leaf to descend to, ``[batch]``, whatever SEARCH and ``attention`` say. What carries a
                gradient to SEARCH is the log-probability of the branches, as in ``reinforce``.

        Raises:
            TypeError: If ``tree`` is no tree.
            ValueError: If the tree is another memory's, or the query or the guide do not fit.
        """
        check_mode(attention)
        self._check_access(tree, query, "query", self.query_size)
        if guide is not None:
            expect_tensor("guide", guide, (len(query),), torch.int64)
            if guide.device.type == "cpu" and len(guide):  # elsewhere, to look would take long
                low, high = map(int, guide.aminmax())
                if low < 0 or high >= tree.num_leaves:
                    last = tree.num_leaves - 1
                    raise ArgumentError(f"Expected argument `guide` from 0 to {last}, but got {low} to {high}.")
        depth = tree.depth
        if guide is not None:
            attention, noise = "reinforce", forcing_noise(guide, depth, query)
        elif attention == "soft":
            return self._attend_softly(tree, query)
        else:
            noise = draw_noise(len(query), depth, attention, query, generator, self.noise)
        if attention not in COUNTERFACTUAL_MODES and self._use_fused(tree, query):
            rows, logits, path, siblings = fused.attend(self.search, tree, query, noise)
            leaf = rows - tree.num_leaves
            return Access(path[:, depth], leaf, logits, path, siblings, logits.new_zeros(len(query), 0), tree)
        descent = descend(tree, query, self.search, attention, noise)
        share = self.query_share if attention in COUNTERFACTUAL_MODES else 1.0
        query = _share(query, share)
        path, siblings, tree = self._beside_path(tree, descent.leaf_rows)
        logits = self.search(path[:, :depth], query)
        read, leaf = path[:, depth], descent.leaf_rows - tree.num_leaves
        if attention in COUNTERFACTUAL_MODES:
            counterfactual_leaves, _ = gather_rows(Tree(tree.nodes.detach()), descent.counterfactual_rows)
            right = went_right(leaf, depth)
            read = straight_through_read(read, counterfactual_leaves, logits, descent.noise, right, self.temperature)
        if attention == "straight_through_write":
            nodes = path[:, :depth]
            logits_of_place = self.search(torch.lerp(nodes.detach(), nodes, PLACE_SHARE), query)
            right = went_right(leaf, depth)
            weights = straight_through_weights(logits_of_place, descent.noise, right, self.temperature)
            return Access(read, leaf, logits, path, siblings, weights, tree, descent.counterfactual_rows, share)
        return Access(read, leaf, logits, path, siblings, logits.new_zeros(len(query), 0), tree, query_share=share)

    def _attend_softly(self, tree: Tree, query: Tensor) -> Access:
        weights, node_logits = leaf_probabilities(tree, query, self.search)
        read = (weights.unsqueeze(1) @ tree.leaves).squeeze(1).to(tree.leaves.dtype)
        leaf = weights.argmax(dim=1)
        leaf_rows = leaf + tree.num_leaves
        logits = node_logits.gather(1, path_rows(leaf_rows, tree.depth)[:, : tree.depth])
        path, siblings, tree = self._beside_path(tree, leaf_rows)
        return Access(read, leaf, logits, path, siblings, weights, tree)

    def _beside_path(self, tree: Tree, leaf_rows: Tensor) -> tuple[Tensor, Tensor, Tree]:
        """Return the nodes on the paths to the leaves, those beside them, and the tree."""
        rows = path_rows(leaf_rows, tree.depth)
        nodes, tree = gather_rows(tree, torch.cat((rows, rows[:, 1:] ^ 1), dim=1))
        return nodes[:, : tree.depth + 1], nodes[:, tree.depth + 1 :], tree

    def write(self, access: Access, query: Tensor, *, in_place: bool = False) -> Tree:
        """Write to the attended leaf and re-join its ancestors (every leaf, by its weight, for ``soft``).

        Args:
            access: What :meth:`attend` returned; the tree that it read from is the one that is changed.
            query: The controller's state after it has seen the read value, ``[batch, query_size]``.
            in_place: Overwrite that tree instead of copying it: O(log n), only where no gradient is needed.

        Raises:
            TypeError: If ``access`` is none.
            ValueError: If the query does not fit.
        """
        expect_kind("access", access, Access, "attend")
        tree = access.tree
        self._check_access(tree, query, "query", self.query_size)
        query = _share(query, access.query_share)
        if access.others is not None:
            rows = torch.cat((access.leaf.unsqueeze(1) + tree.num_leaves, access.others), dim=1)
            leaves, tree = gather_rows(tree, rows)
            leaves = torch.lerp(leaves, self.write_leaf(leaves, query), access.weights.unsqueeze(-1))
            return rejoin_paths(tree, rows, leaves, self.join)
        if access.weights.shape[1]:
            weights = access.weights.unsqueeze(-1)
            return build(torch.lerp(tree.leaves, self.write_leaf(tree.leaves, query), weights), self.join)
        if in_place and self._use_fused(tree, query):
            fused.write_in_place(self, tree, access.leaf + tree.num_leaves, query)
            return tree
        return self.put(access, self.write_leaf(access.path[:, -1], query), in_place=in_place)

    def put(self, access: Access, leaf: Tensor, *, in_place: bool = False) -> Tree:
        """Put a vector where a hard descent arrived, without WRITE, and re-join its ancestors.

        Args:
            access: What :meth:`attend` returned; the tree that it read from is the one that is changed.
            leaf: The new leaf, ``[batch, leaf_size]``.
            in_place: Overwrite that tree instead of copying it: O(log n), only where no gradient is needed.

        Raises:
            TypeError: If ``access`` is none.
            ValueError: If the leaf does not fit.
        """
        expect_kind("access", access, Access, "attend")
        tree = access.tree
        self._check_access(tree, leaf, "leaf", self.leaf_size)
        rows = path_rows(access.leaf + tree.num_leaves, tree.depth)
        path = rejoin_path(rows, leaf, access.siblings, self.join)
        return replace_rows(tree, rows, path, in_place=in_place)

    def _check_cells(self, inputs: Tensor, occupied: Tensor | None, cells: str) -> Tensor:
        """Check cells and which of them are occupied; return the latter, all if that was not said."""
        expect_tensor("inputs", inputs, ("batch", cells, self.input_size), self.embed.blank.dtype)
        if occupied is None:
            return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        expect_tensor("occupied", occupied, tuple(inputs.shape[:2]), torch.bool)
        return occupied

    def _check_access(self, tree: Tree, vectors: Tensor, name: str, size: int) -> None:
        """Check a tree, and vectors for at most as many episodes as it has."""
        expect_kind("tree", tree, Tree, "init")
        nodes, dtype = tree.nodes, self.embed.blank.dtype
        expect_tensor("tree.nodes", nodes, ("batch", "2 * num_leaves", self.leaf_size), dtype)
        check_num_leaves(tree.num_leaves)
        expect_tensor(name, vectors, ("batch", size), dtype)
        if len(vectors) > len(nodes):
            expect_tensor(name, vectors, (len(nodes), size), dtype)

    def replaced(self, *names: str) -> str | None:
        """Return the first of the methods called ``names`` that is another than this class has, if any."""
        for name in names:
            if getattr(type(self), name) is not getattr(HierarchicalAttentiveMemory, name) or name in vars(self):
                return name
        return None

    def _use_fused(self, tree: Tree, query: Tensor) -> bool:
        """Whether compiled loops make a single access to ``tree``."""
        asked = self.engine == "fused" or (self.engine == "auto" and tree.num_leaves >= fused.WORTH_COMPILING)
        if not asked or torch.is_grad_enabled() or not tree.nodes.is_contiguous():
            return False
        if fused.obstacle(tree.nodes, self.join, self.search, self.write_leaf):
            return False
        # Compiled loops check no bounds; plain PyTorch says what is wrong.
        sizes = (len(tree.nodes), self.search.query.in_features), tree.nodes.shape[2]
        return (query.shape, self.leaf_size) == sizes and query.dtype == tree.nodes.dtype


def _share(query: Tensor, share: float) -> Tensor:
    """Return ``query``, to which only a ``share`` of the gradient goes on."""
    return query if share == 1 else torch.lerp(query.detach(), query, share)
