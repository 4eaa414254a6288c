"""The tree: its layout, how it is built, and how one path of it is read and replaced.

Nodes stand in heap order: row 1 is the root, the children of row e are rows 2e (left) and 2e + 1 (right), and leaf i
of a tree with n leaves is row n + i. Row 0 is unused, so that these rules need no special case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Join = Callable[[Tensor, Tensor], Tensor]


class Tree(NamedTuple):
    """The state of a memory: a full binary tree for every episode of a batch."""

    nodes: Tensor
    """All nodes, ``[batch, 2 * num_leaves, leaf_size]``, in heap order."""

    @property
    def num_leaves(self) -> int:
        """N in the paper: a power of two."""
        return self.nodes.shape[1] // 2

    @property
    def depth(self) -> int:
        """Decisions in one descent: log2 of the number of leaves."""
        return self.num_leaves.bit_length() - 1

    @property
    def root(self) -> Tensor:
        """The root of every tree, ``[batch, leaf_size]``."""
        return self.nodes[:, 1]

    @property
    def leaves(self) -> Tensor:
        """The leaves from left to right, ``[batch, num_leaves, leaf_size]``."""
        return self.nodes[:, self.num_leaves :]


def build(leaves: Tensor, join: Join) -> Tree:
    """Join ``leaves`` ``[batch, num_leaves, leaf_size]`` bottom-up into a tree, one level at a time.

    Raises:
        ValueError: If the number of leaves is not a power of two.
    """
    num_leaves = leaves.shape[1]
    if num_leaves < 1 or num_leaves & (num_leaves - 1):
        raise ValueError(f"Expected the number of leaves to be a power of two, but got {num_leaves}.")
    levels = [leaves]
    while levels[-1].shape[1] > 1:
        children = levels[-1].unflatten(1, (-1, 2))
        levels.append(join(children[:, :, 0], children[:, :, 1]))
    unused = torch.zeros_like(levels[-1])
    return Tree(torch.cat((unused, *reversed(levels)), dim=1))


def gather_rows(tree: Tree, rows: Tensor) -> Tensor:
    """Return the nodes ``[batch, count, leaf_size]`` that stand at ``rows`` ``[batch, count]``."""
    batch, total, size = tree.nodes.shape
    flat = rows + total * torch.arange(batch, device=rows.device).unsqueeze(1)
    return tree.nodes.reshape(-1, size).index_select(0, flat.reshape(-1)).view(batch, rows.shape[1], size)


def replace_rows(tree: Tree, rows: Tensor, values: Tensor, *, in_place: bool = False) -> Tree:
    """Return the tree with ``values`` ``[batch, count, leaf_size]`` at ``rows`` ``[batch, count]`` (all different).

    Args:
        tree: The tree; it is left as it is unless ``in_place``.
        rows: Heap rows to replace.
        values: What stands there afterwards.
        in_place: Overwrite the rows of ``tree`` itself, in time independent of its size. Only without gradients.
    """
    batch, total, size = tree.nodes.shape
    flat = (rows + total * torch.arange(batch, device=rows.device).unsqueeze(1)).reshape(-1)
    nodes = tree.nodes.reshape(-1, size)
    copy = nodes.index_copy_ if in_place else nodes.index_copy
    return Tree(copy(0, flat, values.reshape(-1, size)).view(batch, total, size))


def path_rows(leaf_rows: Tensor, depth: int) -> Tensor:
    """Return the heap rows from the root down to each leaf, ``[batch, depth + 1]``, given ``leaf_rows`` ``[batch]``."""
    shifts = torch.arange(depth, -1, -1, device=leaf_rows.device)
    return leaf_rows.unsqueeze(1) >> shifts


def rejoin_path(rows: Tensor, leaf: Tensor, siblings: Tensor, join: Join) -> Tensor:
    """Recompute the nodes on a path after its leaf has changed: Theta(log n) JOINs.

    Args:
        rows: Heap rows of the path from the root to the leaf, ``[batch, depth + 1]``.
        leaf: The new value of the leaf, ``[batch, leaf_size]``.
        siblings: The nodes beside the path from the level below the root to the leaves, ``[batch, depth, leaf_size]``.
        join: JOIN.

    Returns:
        The new nodes of the path from the root to the leaf, ``[batch, depth + 1, leaf_size]``.
    """
    is_right = (rows & 1).bool().unsqueeze(-1)
    path = [leaf]
    for level in range(rows.shape[1] - 1, 0, -1):
        node, sibling = path[-1], siblings[:, level - 1]
        came_from_right = is_right[:, level]
        path.append(join(torch.where(came_from_right, sibling, node), torch.where(came_from_right, node, sibling)))
    return torch.stack(path[::-1], dim=1)
