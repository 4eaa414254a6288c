"""How a leaf is chosen, and how a gradient reaches the choice.

Every mode descends from the root; at each node it goes right with probability sigmoid(SEARCH(node, query)).

========================  ==========================================================================================
mode                      choice, and what carries the gradient
========================  ==========================================================================================
``reinforce``             sampled; nothing but the log-probability of the branches (section 3.2 of the paper)
``straight_through``      sampled; the read value, through counterfactual descents (:func:`straight_through_read`; ours)
``soft``                  no choice: every leaf, weighted by its probability (Appendix A of the paper)
``argmax``                right iff the probability is above 1/2; for evaluation, deterministic
========================  ==========================================================================================
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lightning_ham.memory.transforms import Search
from lightning_ham.memory.tree import Tree, gather_rows

AttentionMode = Literal["reinforce", "straight_through", "soft", "argmax"]


def check_mode(mode: str) -> None:
    """Raise a ValueError unless ``mode`` is a mode of attention."""
    if mode not in get_args(AttentionMode):
        raise ValueError(f"Expected argument `attention` to be one of {get_args(AttentionMode)}, but got {mode!r}.")


class Descent(NamedTuple):
    """Where a hard descent went, found without gradients."""

    leaf_rows: Tensor
    """Heap rows of the attended leaves, ``[batch]``."""
    noise: Tensor
    """Logistic noise added to the logits along the path, ``[batch, depth]``; zeros for ``argmax``."""
    counterfactual_rows: Tensor
    """Heap rows of the leaves that a descent from the sibling not taken at each level reached, ``[batch, depth]``;
    ``[batch, 0]`` unless the mode asks for them."""


def logistic_noise(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard logistic noise: ``1[logit + noise > 0]`` is then a Bernoulli(sigmoid(logit)) sample."""
    dtype = torch.promote_types(like.dtype, torch.float32)  # half precision knows too few probabilities
    uniform = torch.rand(shape, dtype=dtype, device=like.device, generator=generator)
    return torch.logit(uniform, eps=torch.finfo(dtype).eps)


@torch.no_grad()
def descend(
    tree: Tree, query: Tensor, search: Search, mode: AttentionMode, generator: torch.Generator | None = None
) -> Descent:
    """Walk from the root to a leaf in ``depth`` rounds, and from every sibling not taken for ``straight_through``.

    The counterfactual descents go along in the same rounds: column 0 is the path itself, column j + 1 the descent
    that began at the sibling which the path left aside at level j.
    """
    batch, depth = query.shape[0], tree.depth
    counterfactual = mode == "straight_through"
    rows = torch.ones(batch, 1, dtype=torch.long, device=query.device)
    noises = []
    for _ in range(depth):
        logits = search(gather_rows(tree, rows), query)
        noise = torch.zeros_like(logits) if mode == "argmax" else logistic_noise(tuple(logits.shape), logits, generator)
        noises.append(noise[:, 0])
        rows = 2 * rows + (logits + noise > 0)
        if counterfactual:
            rows = torch.cat((rows, rows[:, :1] ^ 1), dim=1)
    noise = torch.stack(noises, dim=1) if noises else query.new_zeros(batch, 0)
    return Descent(rows[:, 0], noise, rows[:, 1:])


def straight_through_read(
    leaf: Tensor, counterfactual_leaves: Tensor, logits: Tensor, noise: Tensor, temperature: float
) -> Tensor:
    """Return the attended leaf itself, with a gradient to the branches that led there.

    The read is ``leaf + sum_j (p_j - stopgrad(p_j)) * stopgrad(right_j - left_j)``: p_j relaxes the decision at
    level j, right_j and left_j are the leaves that the descent reached (or would have reached) through either child.

    Args:
        leaf: Attended leaf, ``[batch, leaf_size]``.
        counterfactual_leaves: Leaf reached from the sibling at each level, ``[batch, depth, leaf_size]``.
        logits: SEARCH along the path, ``[batch, depth]``, with gradients.
        noise: The noise with which the branches were sampled, ``[batch, depth]``.
        temperature: Of the relaxation ``p = sigmoid((logit + noise) / temperature)``.
    """
    perturbed = logits + noise
    p = torch.sigmoid(perturbed / temperature)
    went_right = torch.where(perturbed.detach() > 0, 1.0, -1.0).to(leaf.dtype)
    right_minus_left = went_right.unsqueeze(-1) * (leaf.unsqueeze(1) - counterfactual_leaves).detach()
    return leaf + ((p - p.detach()).unsqueeze(1) @ right_minus_left).squeeze(1)


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
