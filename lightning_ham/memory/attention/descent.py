"""A descent from the root to a leaf: sampling, log-probability and entropy.

At each node, a descent goes right with probability ``sigmoid(SEARCH(node, query))`` (section 3.1 of the paper).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ham.memory.tree import Tree, gather_rows

Search = Callable[[Tensor, Tensor], Tensor]
"""SEARCH: maps nodes ``[batch, nodes, leaf_size]`` and a query to the logits ``[batch, nodes]`` of going right."""


class Descent(NamedTuple):
    """Where a descent went."""

    leaf_rows: Tensor
    """Heap rows of the attended leaves, ``[batch]``."""
    noise: Tensor
    """Logistic noise added to the logits along the path, ``[batch, depth]``; zeros where nothing is sampled."""
    counterfactual_rows: Tensor
    """Heap rows of the counterfactual leaves, ``[batch, depth]``: the descents from the siblings not taken end there.
    ``[batch, 0]`` without such descents."""
    logits: Tensor | None = None
    """SEARCH along the path, ``[batch, depth]``, if the descent has already computed it with a gradient."""
    weights: Tensor | None = None
    """Probability of every leaf, ``[batch, num_leaves]``, if all of them are read."""


def logistic_noise(
    batch: int, count: int, like: Tensor, generator: torch.Generator | None = None, scale: float = 1.0
) -> Tensor:
    """Draw standard logistic noise ``[batch, count]``: ``1[logit + noise > 0]`` is Bernoulli(sigmoid(logit)).

    The noise is multiplied by ``scale``; with 0, descents take the more probable branch.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)  # half precision knows too few probabilities
    if count == 0:
        return like.new_empty(batch, 0, dtype=dtype)
    source: Any = (
        {"generator": generator} if generator else {}
    )  # torch.export knows a batch of any size only without one
    uniform = torch.rand(batch, count, dtype=dtype, device=like.device, **source)
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

    The counterfactual descents share the rounds: column 0 is the path itself, column j + 1 the descent from the
    sibling not taken at level j.

    Args:
        tree: The tree.
        query: The controller's state, ``[batch, query_size]``.
        search: SEARCH.
        noise: Added to the logits: ``[batch, depth]``; ``[batch, 0]`` to go right iff the logit is positive. With
            ``counterfactual``, ``[batch, depth * (depth + 1) / 2]``: 1 number for the root, 2 for the first level, ...
            (the path, then the siblings not taken, from the root down).
        counterfactual: Whether to descend from the siblings not taken, too.
    """
    plain = Tree(tree.nodes)  # gathered without a gradient
    rows = torch.ones(query.shape[0], 1, dtype=torch.long, device=query.device)
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
    path_noise = torch.stack(on_path, dim=1) if on_path else query.new_zeros(query.shape[0], 0)
    return Descent(rows[:, 0], path_noise, rows[:, 1:])


def went_right(leaf: Tensor, depth: int) -> Tensor:
    """Return 1 for each level where the descent to ``leaf`` ``[...]`` went right, else 0: ``[..., depth]``."""
    shifts = torch.arange(depth - 1, -1, -1, device=leaf.device)
    return (leaf.unsqueeze(-1) >> shifts) & 1


def branch_logits(logits: Tensor, noise_scale: float) -> Tensor:
    """Return the logits of the probabilities of sampling the right branch, shaped as ``logits``.

    With logistic noise times s, ``1[logit + noise > 0]`` is Bernoulli(sigmoid(logit / s)). Without noise, nothing is
    sampled and the logits are returned unchanged.
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
