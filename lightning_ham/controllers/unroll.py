"""Whole episodes of a recurrent cell that reads from a memory: one loop, whichever engine runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_ham.controllers import fused
from lightning_ham.memory import AttentionMode, HierarchicalAttentiveMemory
from lightning_ham.memory.attention import check_mode, draw_noise, forcing_noise, path_entropy, path_log_prob
from lightning_ham.memory.tree import begin_in_place, build, check_num_leaves


class Unrolled(NamedTuple):
    """What happened in each access of the episodes of a batch."""

    hidden: Tensor
    """The cell's state after it has seen what was read, ``[batch, accesses, controller_size]``."""
    reads: Tensor
    """The values read, ``[batch, accesses, leaf_size]``."""
    logits: Tensor
    """SEARCH along the path, ``[batch, accesses, depth]``."""
    leaves: Tensor
    """Index of the attended leaf, ``[batch, accesses]``."""
    log_probs: Tensor
    """Log-probability of the branches taken, ``[batch, accesses]``."""
    entropies: Tensor
    """Entropy of the choice in nats, ``[batch, accesses]``."""


WORTH_COMPILING = 256
"""Accesses, over all episodes of a batch, from which ``auto`` chooses the fused engine, which is compiled once."""


def unroll(
    memory: HierarchicalAttentiveMemory,
    cell: nn.LSTMCell,
    leaves: Tensor,
    accesses: int,
    attention: AttentionMode = "argmax",
    generator: torch.Generator | None = None,
    read_root: bool = False,
    guide: Tensor | None = None,
) -> Unrolled:
    """Build a tree of ``leaves``; then attend, read, step the cell, write and re-join, ``accesses`` times.

    Args:
        memory: The memory; its ``engine`` says how this is done.
        cell: Its input is the value read, and the root of the tree behind it if ``read_root``.
        leaves: The leaves at first, ``[batch, num_leaves, leaf_size]``.
        accesses: How many, at least 1.
        attention: How leaves are chosen.
        generator: Source of the samples; torch's global one if not given.
        read_root: Whether the cell also sees the root.
        guide: Index of the leaf to attend to in each access, ``[batch, accesses]``, whatever SEARCH and ``attention``
            say; see :meth:`lightning_ham.memory.HierarchicalAttentiveMemory.attend`.

    Raises:
        ValueError: If ``attention`` is no mode, or ``memory.engine`` is ``fused`` and that engine cannot run these
            episodes.
    """
    check_num_leaves(leaves.shape[1])
    attention = _mode(attention, guide)
    if _use_fused(memory, len(leaves) * accesses, fused.obstacle(memory, cell, leaves, attention, read_root)):
        return _unroll_fused(memory, cell, leaves, accesses, attention, generator, read_root, guide)
    tree = build(leaves, memory.join)
    differentiable = torch.is_grad_enabled()
    if memory.engine != "reference" and differentiable and attention != "soft":
        tree = begin_in_place(tree)
    hidden = state = leaves.new_zeros(len(leaves), cell.hidden_size)
    steps = []
    for leaf in _leaves_to_attend(guide, accesses):
        access = memory.attend(tree, hidden, attention, generator, leaf)
        seen = torch.cat((access.read, access.path[:, 0]), dim=1) if read_root else access.read
        hidden, state = cell(seen, (hidden, state))
        steps.append((hidden, access.read, access.logits, access.leaf, access.log_prob, access.entropy))
        tree = memory.write(access, hidden, in_place=not differentiable)
    return Unrolled(*(torch.stack(values, dim=1) for values in zip(*steps, strict=True)))


def _mode(attention: AttentionMode, guide: Tensor | None) -> AttentionMode:
    """Return the mode in which leaves are chosen; before any engine takes one that it does not know for another."""
    check_mode(attention)
    return attention if guide is None else "reinforce"


def _use_fused(memory: HierarchicalAttentiveMemory, accesses: int, obstacle: str | None) -> bool:
    """Whether compiled loops run so many accesses, given what keeps them from it."""
    if memory.engine not in ("auto", "fused"):
        return False
    if memory.engine == "auto" and accesses < WORTH_COMPILING:
        return False
    if obstacle and memory.engine == "fused":
        raise ValueError(f"The engine 'fused' cannot run this: {obstacle}. Choose the engine 'auto'.")
    return obstacle is None


def _unroll_fused(
    memory: HierarchicalAttentiveMemory,
    cell: nn.LSTMCell,
    leaves: Tensor,
    accesses: int,
    attention: AttentionMode,
    generator: torch.Generator | None,
    read_root: bool,
    guide: Tensor | None,
) -> Unrolled:
    noise = _draw_noises(memory, leaves, accesses, attention, generator, guide)
    episodes = fused.run_episodes(memory, cell, leaves, noise, attention=attention, read_root=read_root)
    hidden, reads, logits, attended = (values.transpose(0, 1) for values in episodes)
    return Unrolled(hidden, reads, logits, attended, path_log_prob(logits, attended), path_entropy(logits))


def _draw_noises(
    memory: HierarchicalAttentiveMemory,
    leaves: Tensor,
    accesses: int,
    attention: AttentionMode,
    generator: torch.Generator | None,
    guide: Tensor | None,
) -> Tensor:
    """Draw the noise of all accesses, in the order in which the other engines do: ``[accesses, batch, count]``."""
    batch, depth = len(leaves), leaves.shape[1].bit_length() - 1
    if guide is not None:
        return forcing_noise(guide.t(), depth, leaves)
    return torch.stack([draw_noise(batch, depth, attention, leaves, generator, memory.noise) for _ in range(accesses)])


def _leaves_to_attend(guide: Tensor | None, accesses: int) -> Sequence[Tensor | None]:
    """Return the guide of every access, each ``[batch]`` or None."""
    return [None] * accesses if guide is None else guide.unbind(dim=1)


class Accesses(NamedTuple):
    """What happened in each access of the episodes of a batch."""

    reads: Tensor
    """The values read, ``[batch, accesses, leaf_size]``."""
    logits: Tensor
    """SEARCH along the path, ``[batch, accesses, depth]``."""
    leaves: Tensor
    """Index of the attended leaf, ``[batch, accesses]``."""
    log_probs: Tensor
    """Log-probability of the branches taken, ``[batch, accesses]``."""
    entropies: Tensor
    """Entropy of the choice in nats, ``[batch, accesses]``."""


def unroll_queries(
    memory: HierarchicalAttentiveMemory,
    queries: Tensor,
    num_leaves: int,
    attention: AttentionMode = "argmax",
    generator: torch.Generator | None = None,
    guide: Tensor | None = None,
) -> Accesses:
    """Build a tree of blank leaves; then attend, read, write and re-join once for each query.

    Args:
        memory: The memory; its ``engine`` says how this is done.
        queries: What SEARCH and WRITE are given in every access, ``[batch, accesses, query_size]``.
        num_leaves: Of the tree, a power of two.
        attention: How leaves are chosen.
        generator: Source of the samples; torch's global one if not given.
        guide: As for :func:`unroll`.

    Raises:
        ValueError: As for :func:`unroll`.
    """
    attention = _mode(attention, guide)
    tree = memory.init_blank(len(queries), num_leaves)
    batch, accesses = queries.shape[:2]
    obstacle = fused.obstacle(memory, None, tree.leaves, attention, queries=queries)
    if _use_fused(memory, batch * accesses, obstacle):
        noise = _draw_noises(memory, tree.leaves, accesses, attention, generator, guide)
        episodes = fused.run_queries(memory, queries.transpose(0, 1), tree.leaves, noise, attention=attention)
        reads, logits, leaves = (values.transpose(0, 1) for values in episodes)
        return Accesses(reads, logits, leaves, path_log_prob(logits, leaves), path_entropy(logits))
    differentiable = torch.is_grad_enabled()
    if differentiable and memory.engine != "reference" and attention != "soft":
        tree = begin_in_place(tree)
    steps = []
    for query, leaf in zip(queries.unbind(dim=1), _leaves_to_attend(guide, accesses), strict=True):
        access = memory.attend(tree, query, attention, generator, leaf)
        steps.append((access.read, access.logits, access.leaf, access.log_prob, access.entropy))
        tree = memory.write(access, query, in_place=not differentiable)
    return Accesses(*(torch.stack(values, dim=1) for values in zip(*steps, strict=True)))
