"""The tree: its layout, building it, and reading and replacing paths.

Nodes are in heap order: row 1 is the root, the children of row e are rows 2e (left) and 2e + 1 (right), and leaf i
of a tree with n leaves is row n + i. Row 0 is unused, so that these rules need no special case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Join = Callable[[Tensor, Tensor], Tensor]


class Tree(NamedTuple):
    """The state of a memory: a full binary tree for every episode of a batch."""

    nodes: Tensor
    """All nodes, ``[batch, 2 * num_leaves, leaf_size]``, in heap order."""
    gradient: _InPlaceGradient | None = None
    """Only for a tree with gradients that is changed in place; see :func:`begin_in_place`."""

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


def check_num_leaves(num_leaves: int) -> None:
    """Raise a ValueError unless a full binary tree can have ``num_leaves``."""
    if num_leaves < 1 or num_leaves & (num_leaves - 1):
        raise ValueError(f"Expected the number of leaves to be a power of two, but got {num_leaves}.")


def build(leaves: Tensor, join: Join) -> Tree:
    """Join ``leaves`` ``[batch, num_leaves, leaf_size]`` bottom-up into a tree, one level at a time.

    Raises:
        ValueError: If the number of leaves is not a power of two.
    """
    check_num_leaves(leaves.shape[1])
    levels = [leaves]
    while levels[-1].shape[1] > 1:
        children = levels[-1].unflatten(1, (-1, 2))
        levels.append(join(children[:, :, 0], children[:, :, 1]))
    unused = torch.zeros_like(levels[-1])
    return Tree(torch.cat((unused, *reversed(levels)), dim=1))


def build_blank(blank: Tensor, batch: int, num_leaves: int, join: Join) -> Tree:
    """Return trees whose leaves are all ``blank`` ``[leaf_size]``; equal nodes at each level need only log n JOINs.

    Raises:
        ValueError: If the number of leaves is not a power of two.
    """
    check_num_leaves(num_leaves)
    levels = [blank]
    while 1 << len(levels) <= num_leaves:
        levels.append(join(levels[-1], levels[-1]))
    unused = torch.zeros_like(blank).unsqueeze(0)
    rows = [level.expand(1 << depth, -1) for depth, level in enumerate(reversed(levels))]
    return Tree(torch.cat((unused, *rows)).expand(batch, -1, -1).contiguous())


def gather_rows(tree: Tree, rows: Tensor) -> Tensor:
    """Return the nodes ``[batch, count, leaf_size]`` at heap rows ``rows`` ``[batch, count]``."""
    _, total, size = tree.nodes.shape
    nodes, flat, gradient = tree.nodes.reshape(-1, size), _flat_rows(rows, total), tree.gradient
    if gradient is None:
        values = nodes.index_select(0, flat)
    else:
        values, gradient.token = _GatherInPlace.apply(gradient.token, nodes, flat)  # type: ignore[no-untyped-call]
    return values.view(*rows.shape, size)


def replace_rows(tree: Tree, rows: Tensor, values: Tensor, *, in_place: bool = False) -> Tree:
    """Return the tree with ``values`` ``[batch, count, leaf_size]`` at ``rows`` ``[batch, count]`` (all different).

    Args:
        tree: The tree; it is not changed unless ``in_place``, or it came from :func:`begin_in_place`.
        rows: Heap rows to replace.
        values: Their new values.
        in_place: Overwrite the rows of ``tree`` itself, in time independent of its size. Only without gradients.
    """
    batch, total, size = tree.nodes.shape
    nodes, flat, values = tree.nodes.reshape(-1, size), _flat_rows(rows, total), values.reshape(-1, size)
    if tree.gradient is not None:
        token = _ReplaceInPlace.apply(tree.gradient.token, nodes, flat, values)  # type: ignore[no-untyped-call]
        tree.gradient.token = token
        return tree
    copy = nodes.index_copy_ if in_place else nodes.index_copy
    return Tree(copy(0, flat, values).view(batch, total, size))


def _flat_rows(rows: Tensor, total: int) -> Tensor:
    """Return the rows as indices into the nodes of all trees of the batch, concatenated."""
    return (rows + total * torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)).reshape(-1)


def begin_in_place(tree: Tree) -> Tree:
    """Return a copy of ``tree`` that :func:`replace_rows` overwrites, yet with the gradients of ordinary copies.

    The cost of gathering and replacing rows no longer grows with the tree, forward or backward. Only
    :func:`gather_rows` returns nodes with a gradient. The tree holds its present nodes only: earlier values cannot be
    gathered once they are replaced.
    """
    token = _BeginInPlace.apply(tree.nodes)  # type: ignore[no-untyped-call]
    return Tree(tree.nodes.detach().clone(), _InPlaceGradient(token))


class _InPlaceGradient:
    """The gradient of a tree that is changed in place.

    Autograd's graph links the operations on the tree by a token instead of the nodes. The token's gradient is that of
    all nodes: one buffer, in which the backward pass of every operation changes its own rows.

    Args:
        token: The token that the last operation returned, shaped as the nodes.
    """

    def __init__(self, token: Tensor) -> None:
        self.token = token


def _token_like(nodes: Tensor) -> Tensor:
    """Return a tensor with the shape of ``nodes`` that takes the memory of one number."""
    return nodes.new_zeros(()).expand_as(nodes)


class _BeginInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, nodes: Tensor) -> Tensor:
        return _token_like(nodes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _GatherInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, nodes: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows)
        ctx.shape = token.shape
        return nodes.index_select(0, rows), _token_like(token)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, values_grad: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, None, None]:
        if values_grad is not None:
            grad = values_grad.new_zeros(ctx.shape) if grad is None else grad
            (rows,) = ctx.saved_tensors
            grad.view(-1, grad.shape[-1]).index_add_(0, rows, values_grad)
        return grad, None, None


class _ReplaceInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, nodes: Tensor, rows: Tensor, values: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows)
        nodes.index_copy_(0, rows, values)
        return _token_like(token)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None, Tensor | None]:
        if grad is None:
            return None, None, None, None
        (rows,) = ctx.saved_tensors
        flat = grad.view(-1, grad.shape[-1])
        values_grad = flat.index_select(0, rows)
        flat.index_fill_(0, rows, 0.0)  # later operations did not see the former nodes
        return grad, None, None, values_grad


def path_rows(leaf_rows: Tensor, depth: int) -> Tensor:
    """Return the heap rows from the root down to each leaf, ``[batch, depth + 1]``, given ``leaf_rows`` ``[batch]``."""
    shifts = torch.arange(depth, -1, -1, device=leaf_rows.device)
    return leaf_rows.unsqueeze(1) >> shifts


def rejoin_path(rows: Tensor, leaf: Tensor, siblings: Tensor, join: Join) -> Tensor:
    """Recompute the nodes on a path after its leaf has changed: Theta(log n) JOINs.

    Args:
        rows: Heap rows of the path from the root to the leaf, ``[batch, depth + 1]``.
        leaf: The new value of the leaf, ``[batch, leaf_size]``.
        siblings: Siblings of the path's nodes, from below the root to the leaves, ``[batch, depth, leaf_size]``.
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


def rejoin_paths(tree: Tree, rows: Tensor, leaves: Tensor, join: Join) -> Tree:
    """Replace the leaf of a path and one leaf of each subtree beside it, and recompute all nodes above: Theta(log^2 n).

    Args:
        tree: The tree.
        rows: Heap rows of the path's leaf, then of a leaf below its sibling at each level, from the root down,
            ``[batch, depth + 1]``.
        leaves: Their new values, ``[batch, depth + 1, leaf_size]``.
        join: JOIN.
    """
    all_rows, all_values = [rows], [leaves]
    values = leaves
    for level in range(tree.depth, 0, -1):
        # The last row is now the path's own sibling; the siblings of the others are unchanged.
        siblings = gather_rows(tree, rows[:, 1:level] ^ 1)
        siblings = torch.cat((values[:, level:], siblings), dim=1)
        values, is_right = values[:, :level], (rows[:, :level] & 1).bool().unsqueeze(-1)
        values = join(torch.where(is_right, siblings, values), torch.where(is_right, values, siblings))
        rows = rows[:, :level] >> 1
        all_rows.append(rows)
        all_values.append(values)
    return replace_rows(tree, torch.cat(all_rows, dim=1), torch.cat(all_values, dim=1))
