"""Whole episodes of a memory: attend, read, write and re-join, again and again, on any engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_ham.engines.choice import ACCESSES_WORTH_COMPILING, accesses_ahead, compiles
from lightning_ham.engines.compiled import run_episodes
from lightning_ham.engines.obstacles import obstacle_to_episodes
from lightning_ham.memory import AttentionMode, Estimator, HierarchicalAttentiveMemory, Tree
from lightning_ham.memory.attention import get_estimator
from lightning_ham.memory.attention.descent import branch_logits, forcing_noise, path_entropy, path_log_prob
from lightning_ham.memory.attention.registry import GUIDED
from lightning_ham.memory.tree import begin_in_place, build, check_num_leaves


class Unrolled(NamedTuple):
    """All accesses of a batch of episodes."""

    hidden: Tensor
    """The cell's state after it has seen the value read, or the given query: ``[batch, accesses, query_size]``."""
    reads: Tensor
    """The values read, ``[batch, accesses, leaf_size]``."""
    logits: Tensor
    """Logits of the probabilities of sampling the right branch on the path, ``[batch, accesses, depth]``: SEARCH,
    divided by the scale of the noise."""
    leaves: Tensor
    """Index of the attended leaf, ``[batch, accesses]``."""
    log_probs: Tensor
    """Log-probability of the branches taken, ``[batch, accesses]``."""
    entropies: Tensor
    """Entropy of the choice in nats, ``[batch, accesses]``."""


def unroll(
    memory: HierarchicalAttentiveMemory,
    source: nn.LSTMCell | Tensor,
    start: Tensor | Tree,
    accesses: int,
    attention: AttentionMode = "argmax",
    generator: torch.Generator | None = None,
    guide: Tensor | None = None,
) -> Unrolled:
    """Attend, read, write and re-join, ``accesses`` times.

    Args:
        memory: The memory; its ``engine`` decides how to run.
        source: Source of the queries. A cell attends with its state, steps with the value read, and writes with its
            new state. Given queries, ``[batch, accesses, query_size]``, both attend and write.
        start: The initial leaves, ``[batch, num_leaves, leaf_size]``, or their tree.
        accesses: Number of accesses, at least 1.
        attention: Name of the estimator that chooses leaves.
        generator: Source of the samples; torch's global one if not given.
        guide: Index of the leaf to attend to in each access, ``[batch, accesses]``, whatever SEARCH and ``attention``
            say; see :meth:`lightning_ham.memory.HierarchicalAttentiveMemory.attend`.

    Raises:
        ValueError: If there is no such estimator, or ``memory.engine`` is ``fused`` and cannot run these episodes.
    """
    leaves = start.leaves if isinstance(start, Tree) else start
    check_num_leaves(leaves.shape[1])
    estimator = get_estimator(attention) if guide is None else _guided(attention)
    obstacle = obstacle_to_episodes(memory, source, leaves, attention, estimator)
    is_traced, batch = torch.compiler.is_compiling(), leaves.shape[0]
    if compiles(memory.engine, batch * accesses, ACCESSES_WORTH_COMPILING, obstacle):
        noise = _draw_noises(memory, leaves, accesses, estimator, generator, guide)
        by_access = source if isinstance(source, nn.LSTMCell) else source.transpose(0, 1)
        episodes = run_episodes(memory, by_access, leaves, noise, estimator)
        hidden, reads, logits, attended = (values.transpose(0, 1) for values in episodes)
        logits = branch_logits(logits, estimator.noise_scale(memory.noise))
        return Unrolled(hidden, reads, logits, attended, path_log_prob(logits, attended), path_entropy(logits))
    tree = start if isinstance(start, Tree) else build(leaves, memory.join)
    differentiable = torch.is_grad_enabled()
    if memory.engine != "reference" and differentiable and estimator.in_place and not is_traced:
        tree = begin_in_place(tree)
    cell = source if isinstance(source, nn.LSTMCell) else None
    given = [] if isinstance(source, nn.LSTMCell) else source.unbind(dim=1)
    hidden = state = leaves.new_zeros(batch, cell.hidden_size if cell else 0)
    steps = []
    with nullcontext() if is_traced else accesses_ahead(batch * accesses):
        for index, leaf in enumerate(_leaves_to_attend(guide, accesses)):
            query = hidden if cell else given[index]
            access = memory.attend(tree, query, attention, generator, leaf)
            if cell:
                hidden, state = cell(access.read, (hidden, state))
            else:
                hidden = query
            steps.append((hidden, access.read, access.branch_logits, access.leaf, access.log_prob, access.entropy))
            tree = memory.write(access, hidden, in_place=not differentiable)
    return Unrolled(*(torch.stack(values, dim=1) for values in zip(*steps, strict=True)))


def _guided(attention: AttentionMode) -> Estimator:
    """Return the estimator of guided accesses; raise a ValueError if ``attention`` names no estimator."""
    get_estimator(attention)
    return GUIDED


def _draw_noises(
    memory: HierarchicalAttentiveMemory,
    leaves: Tensor,
    accesses: int,
    estimator: Estimator,
    generator: torch.Generator | None,
    guide: Tensor | None,
) -> Tensor:
    """Draw the noise of all accesses, in the same order as other engines: ``[accesses, batch, count]``."""
    batch, depth = len(leaves), leaves.shape[1].bit_length() - 1
    if guide is not None:
        return forcing_noise(guide.t(), depth, leaves)
    return torch.stack([estimator.draw_noise(batch, depth, leaves, generator, memory.noise) for _ in range(accesses)])


def _leaves_to_attend(guide: Tensor | None, accesses: int) -> Sequence[Tensor | None]:
    """Return the guide of every access, each ``[batch]`` or None."""
    return [None] * accesses if guide is None else guide.unbind(dim=1)
