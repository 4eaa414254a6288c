"""Whole episodes of a recurrent cell that reads from a memory: one loop, whichever engine runs it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_ham.controllers import fused
from lightning_ham.memory import AttentionMode, HierarchicalAttentiveMemory
from lightning_ham.memory.attention import draw_noise, path_entropy, path_log_prob
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

    Raises:
        ValueError: If ``memory.engine`` is ``fused`` and that engine cannot run these episodes.
    """
    check_num_leaves(leaves.shape[1])
    if _use_fused(memory, cell, leaves, accesses, attention, read_root):
        return _unroll_fused(memory, cell, leaves, accesses, attention, generator, read_root)
    tree = build(leaves, memory.join)
    differentiable = torch.is_grad_enabled()
    if memory.engine != "reference" and differentiable and attention != "soft":
        tree = begin_in_place(tree)
    hidden = state = leaves.new_zeros(len(leaves), cell.hidden_size)
    steps = []
    for _ in range(accesses):
        access = memory.attend(tree, hidden, attention, generator)
        seen = torch.cat((access.read, access.path[:, 0]), dim=1) if read_root else access.read
        hidden, state = cell(seen, (hidden, state))
        steps.append((hidden, access.read, access.logits, access.leaf, access.log_prob, access.entropy))
        tree = memory.write(access, hidden, in_place=not differentiable)
    return Unrolled(*(torch.stack(values, dim=1) for values in zip(*steps, strict=True)))


def _use_fused(
    memory: HierarchicalAttentiveMemory,
    cell: nn.LSTMCell,
    leaves: Tensor,
    accesses: int,
    attention: AttentionMode,
    read_root: bool,
) -> bool:
    if memory.engine not in ("auto", "fused"):
        return False
    if memory.engine == "auto" and len(leaves) * accesses < WORTH_COMPILING:
        return False
    obstacle = fused.obstacle(memory, cell, leaves, attention, read_root)
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
) -> Unrolled:
    batch, depth = len(leaves), leaves.shape[1].bit_length() - 1
    noise = torch.stack([draw_noise(batch, depth, attention, leaves, generator) for _ in range(accesses)])
    episodes = fused.run_episodes(
        memory, cell, leaves, noise, straight_through=attention == "straight_through", read_root=read_root
    )
    hidden, reads, logits, attended = (values.transpose(0, 1) for values in episodes)
    return Unrolled(hidden, reads, logits, attended, path_log_prob(logits, attended), path_entropy(logits))
