"""A descent from the root to a leaf: how it is sampled, and what it says of the choice.

At each node it goes right with probability ``sigmoid(SEARCH(node, query))`` (section 3.1 of the paper).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ham.memory.tree import Tree, gather_rows

Search = Callable[[Tensor, Tensor], Tensor]
"""SEARCH: the logits ``[batch, nodes]`` of going right, of nodes ``[batch, nodes, leaf_size]`` and a query."""


class Descent(NamedTuple):
    """Where a descent went."""

    leaf_rows: Tensor
    """Heap rows of the attended leaves, ``[batch]``."""
    noise: Tensor
    """Logistic noise added to the logits along the path, ``[batch, depth]``; zeros where nothing is sampled."""
    counterfactual_rows: Tensor
    """Heap rows of the leaves that a descent from the sibling not taken at each level reached, ``[batch, depth]``;
    ``[batch, 0]`` unless such descents were asked for."""
    logits: Tensor | None = None
    """SEARCH along the path, ``[batch, depth]``, where the choice has computed it with its gradient already."""
    weights: Tensor | None = None
    """Probability of every leaf, ``[batch, num_leaves]``, where all of them are read."""


def logistic_noise(
    batch: int, count: int, like: Tensor, generator: torch.Generator | None = None, scale: float = 1.0
) -> Tensor:
    """Draw standard logistic noise ``[batch, count]``: ``1[logit + noise > 0]`` is Bernoulli(sigmoid(logit)).

    It is multiplied by ``scale``; with 0, the more probable branch is taken.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)  # half precision knows too few probabilities
    if count == 0:
        return like.new_empty(batch, 0, dtype=dtype)
    uniform = torch.rand(batch, count, dtype=dtype, device=like.device, generator=generator)
    noise = torch.logit(uniform, eps=torch.finfo(dtype).eps)
    return noise if scale == 1 else noise * scale


FORCE = 1e4
"""Noise that no logit of SEARCH outweighs."""


def forcing_noise(leaf: Tensor, depth: int, like: Tensor) -> Tensor:
    """Return noise with which a sampled descent goes to ``leaf`` ``[...]``, whatever SEARCH says: ``[..., depth]``."""
    return (FORCE * (2 * went_right(leaf, depth) - 1)).to(torch.promote_types(like.dtype, torch.float32))


@torch.no_grad()
def descend(tree: Tree, query: Tensor, search: Search, noise: Tensor, *, counterfactual: bool = False) -> Descent:
    """Walk from the root to a leaf in ``depth`` rounds, and from every sibling not taken if ``counterfactual``.

    The counterfactual descents go along in the same rounds: column 0 is the path itself, column j + 1 the descent
    that began at the sibling which the path left aside at level j.

    Args:
        tree: The tree.
        query: The controller's state, ``[batch, query_size]``.
        search: SEARCH.
        noise: Added to the logits: ``[batch, depth]``; ``[batch, 0]`` to go right iff the logit is positive. With
            ``counterfactual``, ``[batch, depth * (depth + 1) / 2]``: 1 number for the root, 2 for the first level, ...
            (the path, then the siblings left aside, from the root down).
        counterfactual: Whether siblings that were not taken are descended from too.
    """
    plain = Tree(tree.nodes)  # gathered without a gradient
    rows = torch.ones(len(query), 1, dtype=torch.long, device=query.device)
    sampled = noise.shape[1] > 0
    on_path = []
    for _ in range(tree.depth):
        logits = search(gather_rows(plain, rows), query)
        if sampled:
            perturbation, noise = noise.split((rows.shape[1], noise.shape[1] - rows.shape[1]), dim=1)
        else:
            perturbation = torch.zeros_like(logits)
        on_path.append(perturbation[:, 0])
        rows = 2 * rows + (logits + perturbation > 0)
        if counterfactual:
            rows = torch.cat((rows, rows[:, :1] ^ 1), dim=1)
    path_noise = torch.stack(on_path, dim=1) if on_path else query.new_zeros(len(query), 0)
    return Descent(rows[:, 0], path_noise, rows[:, 1:])


def went_right(leaf: Tensor, depth: int) -> Tensor:
    """Return whether the descent to ``leaf`` went right at each level, ``[..., depth]`` of 0 and 1, given ``[...]``."""
    shifts = torch.arange(depth - 1, -1, -1, device=leaf.device)
    return (leaf.unsqueeze(-1) >> shifts) & 1


def branch_logits(logits: Tensor, noise_scale: float) -> Tensor:
    """Return the logits of the probabilities with which branches to the right are sampled, shaped as ``logits``.

    With logistic noise times s, ``1[logit + noise > 0]`` is Bernoulli(sigmoid(logit / s)). Without noise nothing is
    sampled, and the logits are returned as they are.
    """
    return logits if noise_scale in (0, 1) else logits / noise_scale


def path_log_prob(logits: Tensor, leaf: Tensor) -> Tensor:
    """Return the log-probability of the branches to ``leaf`` ``[...]``, given SEARCH on its path ``[..., depth]``."""
    signs = 2 * went_right(leaf, logits.shape[-1]).to(logits.dtype) - 1
    return F.logsigmoid(signs * logits).sum(dim=-1)


def path_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the branches of a path, summed over its levels, in nats: ``[..., depth]`` to ``[...]``.

    Over sampled paths its mean is the entropy of the choice of a leaf.
    """
    size = logits.abs()
    return (F.softplus(-size) + size * torch.sigmoid(-size)).sum(dim=-1)
