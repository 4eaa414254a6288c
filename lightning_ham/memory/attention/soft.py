"""No choice: every leaf is read and written, weighted by its probability (Appendix A of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ham.memory.attention.descent import Descent, Search
from lightning_ham.memory.attention.estimator import Access, Estimator, Rejoins
from lightning_ham.memory.transforms import Write
from lightning_ham.memory.tree import Tree, build, path_rows


class Soft(Estimator):
    """Reads the sum of all leaves, weighted by their probabilities, and writes to each by its weight: O(n)."""

    in_place = False
    why_not_compiled = "visits every leaf"

    def descend(self, tree: Tree, query: Tensor, search: Search, noise: Tensor) -> Descent:
        """Weigh all leaves; the path leads to the most probable one."""
        weights, node_logits = leaf_probabilities(tree, query, search)
        leaf_rows = weights.argmax(dim=1) + tree.num_leaves
        logits = node_logits.gather(1, path_rows(leaf_rows, tree.depth)[:, : tree.depth])
        none = leaf_rows.new_empty(leaf_rows.shape[0], 0)
        return Descent(leaf_rows, torch.zeros_like(logits), none, logits, weights)

    def read(self, access: Access, descent: Descent, query: Tensor, search: Search) -> Access:
        """Read the weighted sum of all leaves."""
        leaves, weights = access.tree.leaves, access.weights
        return access._replace(read=(weights.unsqueeze(1) @ leaves).squeeze(1).to(leaves.dtype))

    def write(self, access: Access, query: Tensor, write: Write) -> Tensor:
        """Return all leaves, ``[batch, num_leaves, leaf_size]``, each written by its weight."""
        tree, weights = access.tree, access.weights.unsqueeze(-1)
        return torch.lerp(tree.leaves, write(tree.leaves, query), weights)

    def rejoin(self, memory: Rejoins, access: Access, leaves: Tensor, *, in_place: bool = False) -> Tree:
        """Rebuild the whole tree."""
        return build(leaves, memory.join)

    def entropy(self, access: Access) -> Tensor:
        """Return the entropy of the choice of a leaf, ``[batch]``."""
        return torch.special.entr(access.weights).sum(dim=1)


def leaf_probabilities(tree: Tree, query: Tensor, search: Search) -> tuple[Tensor, Tensor]:
    """Return the probability of every leaf, ``[batch, num_leaves]``, and SEARCH at every inner node.

    The logits come in heap order, ``[batch, num_leaves]``: column e belongs to node e, column 0 is meaningless.
    """
    batch, num_leaves = query.shape[0], tree.num_leaves
    logits = search(tree.nodes[:, :num_leaves], query)
    right = torch.sigmoid(logits)
    probabilities = torch.ones_like(right[:, :1])
    level = 1
    while level < num_leaves:
        p = right[:, level : 2 * level]
        left = torch.sigmoid(-logits[:, level : 2 * level])  # more exact than 1 - p
        probabilities = torch.stack((probabilities * left, probabilities * p), dim=-1).view(batch, -1)
        level *= 2
    return probabilities, logits
