"""How a leaf is chosen, and how a gradient reaches the choice.

Every mode descends from the root; at each node it goes right with probability sigmoid(SEARCH(node, query)).

========================  ==========================================================================================
mode                      choice, and what carries the gradient
========================  ==========================================================================================
``reinforce``             sampled; nothing but the log-probability of the branches (section 3.2 of the paper)
``straight_through``      sampled; the read value, through counterfactual descents (:func:`straight_through_read`; ours)
``straight_through_write``  the same, and the place of the write as well (:func:`straight_through_weights`; ours)
``soft``                  no choice: every leaf, weighted by its probability (Appendix A of the paper)
``argmax``                right iff the probability is above 1/2; for evaluation, deterministic
========================  ==========================================================================================
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ham.memory.transforms import Search
from lightning_ham.memory.tree import Tree, gather_rows

AttentionMode = Literal["reinforce", "straight_through", "straight_through_write", "soft", "argmax"]
COUNTERFACTUAL_MODES = ("straight_through", "straight_through_write")

PLACE_SHARE = 0.3
"""Share of the gradient of a write's place that goes on from SEARCH to the nodes that it saw.

With none, nodes do not learn to say where there is room. With all, it feeds itself: nodes get gradients from the places
of later writes, which multiply from access to access, and the gradient of an episode of 32 explodes."""


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


def draw_noise(
    batch: int,
    depth: int,
    mode: AttentionMode,
    like: Tensor,
    generator: torch.Generator | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Draw the standard logistic noise of one hard descent: ``1[logit + noise > 0]`` is Bernoulli(sigmoid(logit)).

    In the straight-through modes it is multiplied by ``scale``; with 0, the more probable branch is taken.

    Returns:
        ``[batch, depth]`` for ``reinforce``; ``[batch, depth * (depth + 1) / 2]`` for ``straight_through``, that is 1
        number for the root, 2 for the first level, ... (the path, then the siblings left aside, from the root down);
        ``[batch, 0]`` for ``argmax``.
    """
    count = depth * (depth + 1) // 2 if mode in COUNTERFACTUAL_MODES else depth if mode == "reinforce" else 0
    dtype = torch.promote_types(like.dtype, torch.float32)  # half precision knows too few probabilities
    uniform = torch.rand(batch, count, dtype=dtype, device=like.device, generator=generator)
    noise = torch.logit(uniform, eps=torch.finfo(dtype).eps)
    return noise * scale if mode in COUNTERFACTUAL_MODES and scale != 1 else noise


FORCE = 1e4
"""Noise that no logit of SEARCH outweighs."""


def forcing_noise(leaf: Tensor, depth: int, like: Tensor) -> Tensor:
    """Return noise with which ``reinforce`` descends to ``leaf`` ``[...]``, whatever SEARCH says: ``[..., depth]``."""
    return (FORCE * (2 * went_right(leaf, depth) - 1)).to(torch.promote_types(like.dtype, torch.float32))


@torch.no_grad()
def descend(tree: Tree, query: Tensor, search: Search, mode: AttentionMode, noise: Tensor) -> Descent:
    """Walk from the root to a leaf in ``depth`` rounds, and from every sibling not taken for ``straight_through``.

    The counterfactual descents go along in the same rounds: column 0 is the path itself, column j + 1 the descent
    that began at the sibling which the path left aside at level j.

    Args:
        tree: The tree.
        query: The controller's state, ``[batch, query_size]``.
        search: SEARCH.
        mode: One of the hard modes.
        noise: From :func:`draw_noise`.
    """
    plain = Tree(tree.nodes)  # gathered without a gradient
    rows = torch.ones(len(query), 1, dtype=torch.long, device=query.device)
    on_path = []
    for _ in range(tree.depth):
        logits = search(gather_rows(plain, rows)[0], query)
        if mode == "argmax":
            perturbation = torch.zeros_like(logits)
        else:
            perturbation, noise = noise.split((rows.shape[1], noise.shape[1] - rows.shape[1]), dim=1)
        on_path.append(perturbation[:, 0])
        rows = 2 * rows + (logits + perturbation > 0)
        if mode in COUNTERFACTUAL_MODES:
            rows = torch.cat((rows, rows[:, :1] ^ 1), dim=1)
    path_noise = torch.stack(on_path, dim=1) if on_path else query.new_zeros(len(query), 0)
    return Descent(rows[:, 0], path_noise, rows[:, 1:])


def went_right(leaf: Tensor, depth: int) -> Tensor:
    """Return whether the descent to ``leaf`` went right at each level, ``[..., depth]`` of 0 and 1, given ``[...]``."""
    shifts = torch.arange(depth - 1, -1, -1, device=leaf.device)
    return (leaf.unsqueeze(-1) >> shifts) & 1


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


def straight_through_read(
    leaf: Tensor, counterfactual_leaves: Tensor, logits: Tensor, noise: Tensor, right: Tensor, temperature: float
) -> Tensor:
    """Return the attended leaf itself, with a gradient to the branches that led there.

    The read is ``leaf + sum_j (p_j - stopgrad(p_j)) * stopgrad(right_j - left_j)``: p_j relaxes the decision at
    level j, right_j and left_j are the leaves that the descent reached (or would have reached) through either child.

    Args:
        leaf: Attended leaf, ``[batch, leaf_size]``.
        counterfactual_leaves: Leaf reached from the sibling at each level, ``[batch, depth, leaf_size]``.
        logits: SEARCH along the path, ``[batch, depth]``, with gradients.
        noise: The noise with which the branches were sampled, ``[batch, depth]``.
        right: Whether the descent went right at each level, ``[batch, depth]`` of 0 and 1.
        temperature: Of the relaxation ``p = sigmoid((logit + noise) / temperature)``.
    """
    p = torch.sigmoid((logits + noise) / temperature)
    signs = (2 * right - 1).to(leaf.dtype).unsqueeze(-1)
    right_minus_left = signs * (leaf.unsqueeze(1) - counterfactual_leaves).detach()
    through_branches = (p - p.detach()).to(leaf.dtype).unsqueeze(1) @ right_minus_left
    return leaf + through_branches.squeeze(1).to(leaf.dtype)


def straight_through_weights(logits: Tensor, noise: Tensor, right: Tensor, temperature: float) -> Tensor:
    """Return how much is written to the attended leaf and to the counterfactual ones, with a gradient to the branches.

    The attended leaf has weight 1 and the others 0. Like those of :func:`straight_through_read`, each branch moves
    weight between the attended leaf and the one that was reached on its other side, by ``p_j - stopgrad(p_j)``. A write
    ``h := w WRITE(h) + (1 - w) h`` to all of them then tells the branches what the loss would have been elsewhere, to
    first order.

    Args:
        logits: SEARCH along the path, ``[batch, depth]``, with gradients.
        noise: The noise with which the branches were sampled, ``[batch, depth]``.
        right: Whether the descent went right at each level, ``[batch, depth]`` of 0 and 1.
        temperature: Of the relaxation.

    Returns:
        ``[batch, depth + 1]``: the attended leaf first, then the counterfactual ones from the root down.
    """
    p = torch.sigmoid((logits + noise) / temperature)
    moved = ((p - p.detach()) * (2 * right - 1)).to(logits.dtype)
    return torch.cat((1 + moved.sum(dim=1, keepdim=True), -moved), dim=1)


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
