"""Like ``straight_through``; the place of the write carries a gradient to the branches, too (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ham.memory.attention.descent import Descent, Search, went_right
from lightning_ham.memory.attention.estimator import Access, Compiled, Rejoins
from lightning_ham.memory.attention.straight_through import StraightThrough
from lightning_ham.memory.transforms import Write
from lightning_ham.memory.tree import Tree, gather_rows, rejoin_paths

PLACE_SHARE = 0.0
"""Share of the gradient of a write's place that SEARCH passes on to the nodes.

Nodes learn to show free room from the values read and from hints; with 0, the place of a write does not teach them.
A larger share sends the gradient in a loop, from the place of one write through the nodes to the places of earlier
writes: with 0.3 and 0.1, runs of Stack and Queue diverged with some seeds."""


class StraightThroughWrite(StraightThrough):
    """Writes to the attended leaf with weight 1 and to the counterfactual ones with 0; the weights have gradients.

    For episodes that do not score what is read at a write: :func:`straight_through_weights`.
    """

    compiled = Compiled(counterfactual=True, through_write=True)

    def read(self, access: Access, descent: Descent, query: Tensor, search: Search) -> Access:
        """Let the read and the weights of the write carry a gradient to the branches."""
        access = super().read(access, descent, query, search)
        depth = access.tree.depth
        nodes = access.path[:, :depth]
        logits_of_place = search(torch.lerp(nodes.detach(), nodes, PLACE_SHARE), query)
        weights = straight_through_weights(logits_of_place, descent.noise, went_right(access.leaf, depth))
        return access._replace(weights=weights, others=descent.counterfactual_rows)

    def write(self, access: Access, query: Tensor, write: Write) -> Tensor:
        """Return the attended leaf and the counterfactual ones, ``[batch, depth + 1, leaf_size]``."""
        leaves = gather_rows(access.tree, _rows(access))
        return torch.lerp(leaves, write(leaves, query), access.weights.unsqueeze(-1))

    def rejoin(self, memory: Rejoins, access: Access, leaves: Tensor, *, in_place: bool = False) -> Tree:
        """Re-join the path to the attended leaf and those to the counterfactual ones."""
        return rejoin_paths(access.tree, _rows(access), leaves, memory.join)


def _rows(access: Access) -> Tensor:
    """Return the heap rows of the written leaves, the attended one first, ``[batch, depth + 1]``."""
    assert access.others is not None
    return torch.cat((access.leaf.unsqueeze(1) + access.tree.num_leaves, access.others), dim=1)


def straight_through_weights(logits: Tensor, noise: Tensor, right: Tensor) -> Tensor:
    """Return the weights of a write to the attended and the counterfactual leaves, with a gradient to the branches.

    The attended leaf has weight 1 and the others 0. Each branch moves weight between the attended leaf and the leaf
    reached on its other side, by ``p_j - stopgrad(p_j)``. A write ``h := w WRITE(h) + (1 - w) h`` to all of them then
    tells the branches, to first order, the loss of writing elsewhere.

    Args:
        logits: SEARCH along the path, ``[batch, depth]``, with gradients: ``p = sigmoid(logits + noise)``.
        noise: The noise that sampled the branches, ``[batch, depth]``.
        right: Whether the descent went right at each level, ``[batch, depth]`` of 0 and 1.

    Returns:
        ``[batch, depth + 1]``: the attended leaf first, then the counterfactual ones from the root down.
    """
    p = torch.sigmoid(logits + noise)
    moved = ((p - p.detach()) * (2 * right - 1)).to(logits.dtype)
    return torch.cat((1 + moved.sum(dim=1, keepdim=True), -moved), dim=1)
