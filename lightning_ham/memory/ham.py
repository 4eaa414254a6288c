"""One access to the memory: attend, read, write, re-join (arXiv 1602.03218, section 3)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lightning_ham.memory.arguments import check_access, check_guide, expect_kind
from lightning_ham.memory.attention import Access, AttentionMode, get_estimator
from lightning_ham.memory.attention.descent import forcing_noise
from lightning_ham.memory.attention.estimator import put_leaf
from lightning_ham.memory.attention.registry import GUIDED
from lightning_ham.memory.engine import Accelerator, Engine, check_engine
from lightning_ham.memory.filling import Filling
from lightning_ham.memory.transforms import JoinKind
from lightning_ham.memory.tree import Tree, gather_rows, path_rows


class HierarchicalAttentiveMemory(Filling):
    """A binary-tree memory with attention in O(log n).

    Its methods take and return its state, a :class:`Tree`. The module holds parameters only, so one memory serves
    trees of any size. One access: ``access = memory.attend(tree, query)``, then ``tree = memory.write(access, query)``.

    Args:
        input_size: Numbers per input cell (b in the paper).
        query_size: Numbers in the controller's state (l in the paper).
        leaf_size: Numbers per node of the tree (d in the paper).
        hidden_size: Units in the hidden layer of EMBED, JOIN and SEARCH; ``leaf_size`` if not given.
        join: ``gated`` (in every dimension a choice between the children and a new value), ``choice`` (one child for
            all dimensions), ``mlp`` (the paper's), or the name of another package's JOIN.
        real_inputs: How many of the first numbers of a cell are reals in [0, 1] rather than bits. Every node holds the
            exact minimum and maximum of each below it; JOIN sees the differences of its children's.
        grid: Round the rest of a node to multiples of this power of two, such as 1/4; None: do not round.
        engine: Which implementation to use; it changes the speed, not the numbers.
    """

    accelerator: ClassVar[Accelerator | None] = None
    """Makes accesses without gradients faster where it can; :mod:`lightning_ham.engines` sets it."""

    def __init__(
        self,
        input_size: int,
        query_size: int,
        leaf_size: int = 32,
        hidden_size: int | None = None,
        join: JoinKind = "gated",
        real_inputs: int = 0,
        grid: float | None = None,
        engine: Engine = "auto",
    ) -> None:
        super().__init__(input_size, query_size, leaf_size, hidden_size, join, real_inputs, grid)
        check_engine(engine)
        self.engine = engine
        self.noise = 1.0
        """Scale of the noise with which the straight-through modes sample branches."""
        self.query_share = 1.0
        """Share of the gradients of SEARCH and WRITE that the query gets in straight-through modes, in [0, 1].
        Every access passes the gradient on from read to query; with a gain above 1, training diverges."""

    def attend(
        self,
        tree: Tree,
        query: Tensor,
        attention: AttentionMode = "argmax",
        generator: torch.Generator | None = None,
        guide: Tensor | None = None,
    ) -> Access:
        """Descend to a leaf (a in the paper) with the controller's state (h_LSTM), and read it (h_a).

        Args:
            tree: The memory's state.
            query: The controller's state, ``[batch, query_size]``.
            attention: Name of the estimator; ``argmax`` for evaluation, any other for training.
            generator: Source of the samples; torch's global one if not given.
            guide: Index of the leaf to descend to, ``[batch]``, instead of the choice of SEARCH and ``attention``. The
                log-probability of the branches then carries a gradient to SEARCH, as in ``reinforce``.

        Raises:
            ValueError, TypeError: If the tree, the query or the guide do not fit the memory.
        """
        estimator = get_estimator(attention)
        if self.accelerator and guide is None and not torch.compiler.is_compiling():
            access = self.accelerator.attend(self, tree, query, estimator, generator)
            if access is not None:
                return access
        check_access(tree, self.leaf_size, "query", query, self.query_size, self.embed.blank.dtype)
        batch, depth = query.shape[0], tree.depth
        if guide is None:
            noise = estimator.draw_noise(batch, depth, query, generator, self.noise)
        else:
            check_guide(guide, batch, tree.num_leaves)
            estimator, noise = GUIDED, forcing_noise(guide, depth, query)
        scale = estimator.noise_scale(self.noise)
        share = self.query_share if estimator.shares_query else 1.0
        query = _with_share(query, share)
        # Attend: from the root, to the right with probability SEARCH(h_node, h_LSTM).
        descent = estimator.descend(tree, query, self.search, noise)
        rows = path_rows(descent.leaf_rows, depth)
        nodes = gather_rows(tree, torch.cat((rows, rows[:, 1:] ^ 1), dim=1))
        path, siblings = nodes[:, : depth + 1], nodes[:, depth + 1 :]
        logits = self.search(path[:, :depth], query) if descent.logits is None else descent.logits
        # Read: h_a.
        leaf = descent.leaf_rows - tree.num_leaves
        weights = logits.new_zeros(batch, 0) if descent.weights is None else descent.weights
        access = Access(path[:, depth], leaf, logits, path, siblings, weights, tree, None, share, estimator, scale)
        return estimator.read(access, descent, query, self.search)

    def write(self, access: Access, query: Tensor, *, in_place: bool = False) -> Tree:
        """Write to the attended leaf and re-join its ancestors (every leaf, by its weight, for ``soft``).

        Args:
            access: Result of :meth:`attend`; it holds the tree to write to.
            query: The controller's state after the read, ``[batch, query_size]``.
            in_place: Overwrite the tree instead of copying it: O(log n), only if no gradient is needed.
        """
        if (
            in_place
            and self.accelerator
            and not torch.compiler.is_compiling()
            and self.accelerator.write(self, access, query)
        ):
            return access.tree
        expect_kind("access", access, Access, "attend")
        check_access(access.tree, self.leaf_size, "query", query, self.query_size, self.embed.blank.dtype)
        # Write: h_a := WRITE(h_a, h_LSTM).
        leaves = access.estimator.write(access, _with_share(query, access.query_share), self.write_leaf)
        # Re-join: from a up to the root, h_e := JOIN(h_left, h_right).
        return access.estimator.rejoin(self, access, leaves, in_place=in_place)

    def put(self, access: Access, leaf: Tensor, *, in_place: bool = False) -> Tree:
        """Do the same as :meth:`write` for a hard descent, with ``leaf`` ``[batch, leaf_size]`` in place of WRITE's."""
        expect_kind("access", access, Access, "attend")
        check_access(access.tree, self.leaf_size, "leaf", leaf, self.leaf_size, self.embed.blank.dtype)
        return put_leaf(access, leaf, self.join, in_place=in_place)


def _with_share(query: Tensor, share: float) -> Tensor:
    """Return ``query`` with its gradient scaled by ``share``."""
    return query if share == 1 else torch.lerp(query.detach(), query, share)
