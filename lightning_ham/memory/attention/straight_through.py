"""Sampled branches that learn through the value read, by descents from the siblings not taken (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ham.memory.attention.descent import Descent, Search, descend, went_right
from lightning_ham.memory.attention.estimator import Access, Compiled, Estimator
from lightning_ham.memory.tree import Tree, gather_rows


class StraightThrough(Estimator):
    """Samples every branch, and also descends from every sibling not taken: ``depth * (depth + 1) / 2`` SEARCHes.

    The value read is the attended leaf; it carries a gradient to the branches: :func:`straight_through_read`.
    """

    scales_noise = True
    shares_query = True
    compiled = Compiled(counterfactual=True)

    def noise_count(self, depth: int) -> int:
        """One for the root, two for the first level, ...: the path, then the siblings not taken."""
        return depth * (depth + 1) // 2

    def descend(self, tree: Tree, query: Tensor, search: Search, noise: Tensor) -> Descent:
        """Descend from the root, and from every sibling not taken."""
        return descend(tree, query, search, noise, counterfactual=True)

    def read(self, access: Access, descent: Descent, query: Tensor, search: Search) -> Access:
        """Let the read carry a gradient to the branches."""
        others = gather_rows(Tree(access.tree.nodes.detach()), descent.counterfactual_rows)
        right = went_right(access.leaf, access.tree.depth)
        read = straight_through_read(access.read, others, access.logits, descent.noise, right)
        return access._replace(read=read)


def straight_through_read(
    leaf: Tensor, counterfactual_leaves: Tensor, logits: Tensor, noise: Tensor, right: Tensor
) -> Tensor:
    """Return the attended leaf itself, with a gradient to the branches that led there.

    The read is ``leaf + sum_j (p_j - stopgrad(p_j)) * stopgrad(right_j - left_j)``: p_j relaxes the decision at
    level j, right_j and left_j are the leaves that the descent reached (or would have reached) through either child.

    Args:
        leaf: Attended leaf, ``[batch, leaf_size]``.
        counterfactual_leaves: Leaf reached from the sibling at each level, ``[batch, depth, leaf_size]``.
        logits: SEARCH along the path, ``[batch, depth]``, with gradients: ``p = sigmoid(logits + noise)``.
        noise: The noise that sampled the branches, ``[batch, depth]``.
        right: Whether the descent went right at each level, ``[batch, depth]`` of 0 and 1.
    """
    p = torch.sigmoid(logits + noise)
    signs = (2 * right - 1).to(leaf.dtype).unsqueeze(-1)
    right_minus_left = signs * (leaf.unsqueeze(1) - counterfactual_leaves).detach()
    through_branches = (p - p.detach()).to(leaf.dtype).unsqueeze(1) @ right_minus_left
    return leaf + through_branches.squeeze(1).to(leaf.dtype)
