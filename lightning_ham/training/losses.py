"""The parts of the training objective as pure functions (section 3.2 of the paper).

Values are per timestep or per access, ``[batch, time]``; a mask selects the entries that count.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ham.evaluation.errors import wrong_bits


def log_likelihood(logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
    """Return log p(y_t) of every timestep in nats, ``[batch, timesteps]``, over independent scored bits.

    Args:
        logits: Logits of the output bits, ``[batch, timesteps, bits]``.
        targets: Zeros and ones, shaped as ``logits``.
        scored: True for bits that count, shaped as ``logits``.
    """
    nll = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return -(nll * scored).sum(dim=-1)


def until_first_error(logits: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
    """Return ``scored`` with False after the first timestep with a wrong bit; arguments as above."""
    wrong = wrong_bits(logits, targets, scored).any(dim=-1)
    errors_before = wrong.cumsum(dim=1) - wrong.long()
    return scored & (errors_before == 0).unsqueeze(-1)


def log_prior(branch_probs: Tensor, right: float) -> Tensor:
    """Return the mean log-probability, in nats, of the branches of every access under a prior.

    Its sum with the branches' entropy is minus their Kullback-Leibler divergence from the prior.

    Args:
        branch_probs: Probability of going right at each level, ``[batch, accesses, depth]``.
        right: Probability of going right under the prior, at every node.
    """
    return (branch_probs * math.log(right) + (1 - branch_probs) * math.log1p(-right)).sum(dim=-1)


def masked_mean(values: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Return the mean of ``values`` where ``mask`` is True, both ``[batch, time]``; 0 where none is.

    Args:
        values: What to average.
        mask: True for entries that count.
        count: Number to divide their sum by, a scalar; by default the number of these entries, at least 1.
    """
    return torch.where(mask, values, 0.0).sum() / (mask.sum().clamp(min=1) if count is None else count)


def spread_over_accesses(rewards: Tensor, accesses_per_output: int) -> Tensor:
    """Give every timestep's reward to the last of its accesses: ``[batch, timesteps]`` to ``[batch, accesses]``."""
    earlier = rewards.new_zeros(*rewards.shape, accesses_per_output - 1)
    return torch.cat((earlier, rewards.unsqueeze(-1)), dim=-1).flatten(1)


def discounted_returns(rewards: Tensor, discount: float) -> Tensor:
    """Return ``sum over i >= t of discount^(i - t) * rewards_i`` for every t, ``[batch, time]``."""
    returns = torch.empty_like(rewards)
    total = torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        total = rewards[:, t] + discount * total
        returns[:, t] = total
    return returns


def leave_one_out_baseline(returns: Tensor, rollouts: int) -> Tensor:
    """Return, for every rollout, the mean return of the other rollouts of the same episode at the same time.

    Args:
        returns: ``[episodes * rollouts, time]``; the rollouts of an episode are adjacent.
        rollouts: Rollouts per episode, at least 2.
    """
    if rollouts < 2:
        raise ValueError(f"Expected at least 2 rollouts per episode for a leave-one-out baseline, but got {rollouts}.")
    grouped = returns.unflatten(0, (-1, rollouts))
    others = (grouped.sum(dim=1, keepdim=True) - grouped) / (rollouts - 1)
    return others.flatten(0, 1)


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Return the loss whose gradient is REINFORCE's: minus the mean of ``advantage * grad log p(branches)``.

    Args:
        log_probs: Log-probability of the branches taken in every access, ``[batch, accesses]``.
        advantages: Return minus baseline of every access, shaped the same; no gradient flows through it.
        mask: True for accesses that count.
        count: See :func:`masked_mean`.
    """
    return -masked_mean(advantages.detach() * log_probs, mask, count)


def baseline_loss(values: Tensor, returns: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Return the mean squared error of the learned baseline ``values``, where ``mask`` is True.

    Args:
        values: The baseline at every access, ``[batch, accesses]``.
        returns: Returns, shaped the same; no gradient flows through them.
        mask: True for accesses that count.
        count: See :func:`masked_mean`.
    """
    return masked_mean((values - returns.detach()) ** 2, mask, count)
