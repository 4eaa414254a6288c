"""The objective of a training: the loss of a controller's rollout of a batch of episodes.

The paper maximises the expected log-likelihood of an episode's output over sampled branches A (section 3.2).
Its gradient is ``E[ grad log p(y | A, x)  +  R * grad log p(A | x) ]``: the first summand is ``nll`` below, the second
``policy``, for ``reinforce`` alone. With other attentions, the first already carries a gradient to the branches.

=========  ==================================================================  ======================
summand    what it is                                                          weight in the loss
=========  ==================================================================  ======================
nll        ``- log p(y_t | A, x)``, per scored timestep t                      1
policy     ``- (R_k - b_k) * log p(a_k)``, per scored timestep                 1, ``reinforce`` alone
baseline   ``(b_k - R_k)^2``, per access k                                     1, if it is learned
entropy    entropy of the branches ``a_k``, per access                         minus the entropy bonus
prior      ``log q(a_k)``, expected, under a branch prior q other than 1/2     minus the entropy bonus
hint       ``- log p(hint bits)``, per timestep that has some                  ``hint_weight``
guide      ``- log p(a_k)`` of the leaves that the task names, per access      1, in guided batches
=========  ==================================================================  ======================

The return of an access is ``R_k = sum over i >= k of discount^(i - k) * r_i``, where the reward ``r_i`` is
``log p(y_t | A, x)`` for the last access before output t, and 0 for others. The loss of guided batches has no policy,
baseline, entropy or prior, as nothing is chosen.

With several processes, all means are over the episodes of all of them: one process's summands are its share, so that
their average over the processes, which is what DDP makes of the gradients, is that of one process with all episodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ham.controllers import Rollout
from lightning_ham.tasks import Episodes, Task
from lightning_ham.training import losses
from lightning_ham.training.options import ExplorationOptions, ReinforceOptions, SupervisionOptions


class Processes(NamedTuple):
    """The processes that train together, each with a batch of its own."""

    number: int = 1
    """How many there are."""
    total: Callable[[Tensor], Tensor] = lambda value: value
    """Returns the sum of a tensor over all processes; all of them must call it."""

    def counts(self, *masks: Tensor) -> list[Tensor]:
        """Return, for each mask, how many of its entries are True: in all processes, at least 1, over their number."""
        counts = self.total(torch.stack([mask.sum() for mask in masks]))
        return list((counts.clamp(min=1) / self.number).unbind())

    def mean(self, share: Tensor) -> Tensor:
        """Return the mean over all processes of a mean whose shares they hold."""
        return self.total(share) / self.number


ALONE = Processes()
"""The processes of a training in one."""


@dataclasses.dataclass(frozen=True)
class _Counted:
    """Entries of a batch that count, and the number that their sums are divided by."""

    mask: Tensor
    """``[batch, time]``."""
    count: Tensor
    """A scalar; see :meth:`Processes.counts`."""

    def mean(self, values: Tensor) -> Tensor:
        """Return this process's share of the mean of ``values``, ``[batch, time]``."""
        return losses.masked_mean(values, self.mask, self.count)


class Objective(NamedTuple):
    """The loss of a batch, with its summands."""

    loss: Tensor
    """To be minimised; a scalar."""
    summands: dict[str, Tensor]
    """Those summands of the table above that this training has, as scalars without weights."""


def objective(
    rollout: Rollout,
    episodes: Episodes,
    task: Task[Any, Any],
    *,
    exploration: ExplorationOptions,
    supervision: SupervisionOptions,
    reinforce: ReinforceOptions | None,
    bonus: float,
    values: Tensor | None = None,
    guided: bool = False,
    processes: Processes = ALONE,
) -> Objective:
    """Return the loss of a batch and its summands; see the table above.

    Args:
        rollout: What the controller did.
        episodes: The episodes, with one row for each rollout.
        task: The task of the episodes.
        exploration: Holds the prior of the branches.
        supervision: Holds the weight of hints, and which timesteps count.
        reinforce: Options of the policy gradient; None for other attentions.
        bonus: The entropy bonus at this step of the training.
        values: The learned baseline at every access, ``[batch, accesses]``, if there is one.
        guided: Whether the accesses went to the leaves that the task names.
        processes: The processes that train together.
    """
    if supervision.until_error:
        scored = losses.until_first_error(rollout.outputs, episodes.targets, episodes.scored)
        episodes = episodes._replace(scored=scored)
    likelihood = losses.log_likelihood(rollout.outputs, episodes.targets, episodes.scored)
    scored = episodes.scored.any(dim=-1)
    masks = [scored, _accesses_that_count(scored, rollout)]
    hinted = task.hinted(episodes) if task.num_hints else None
    if hinted is not None:
        masks.append(hinted.any(dim=-1))
    timesteps, accesses, *with_hints = map(_Counted, masks, processes.counts(*masks))
    summands = {"nll": -timesteps.mean(likelihood), "entropy": accesses.mean(rollout.entropies)}
    if exploration.branch_prior != 0.5:
        summands["prior"] = accesses.mean(losses.log_prior(rollout.branch_probs, exploration.branch_prior))
    if hinted is not None:
        hints = losses.log_likelihood(rollout.outputs, episodes.targets, hinted)
        summands["hint"] = -with_hints[0].mean(hints)
    if guided:
        summands["guide"] = -accesses.mean(rollout.log_probs)
        choice = summands["guide"]
    else:
        if reinforce is not None and rollout.log_probs.shape[1] > 0:  # without a memory there is no choice to reward
            summands |= _policy_gradient(
                rollout, likelihood.detach(), timesteps, accesses, reinforce, values, processes
            )
        regularity = summands["entropy"] + summands.get("prior", 0.0)
        choice = summands.get("policy", 0.0) + summands.get("baseline", 0.0) - bonus * regularity
    loss = summands["nll"] + choice + supervision.hint_weight * summands.get("hint", 0.0)
    return Objective(loss, summands)


def _accesses_that_count(timesteps: Tensor, rollout: Rollout) -> Tensor:
    """Return which accesses come no later than the last scored timestep, ``[batch, accesses]``.

    Args:
        timesteps: Which timesteps are scored, ``[batch, timesteps]``.
        rollout: What the controller did.
    """
    until_last = timesteps.flip(1).cumsum(dim=1).flip(1) > 0
    return until_last.repeat_interleave(_accesses_per_output(rollout), dim=1)


def _accesses_per_output(rollout: Rollout) -> int:
    return rollout.log_probs.shape[1] // rollout.outputs.shape[1]


def _policy_gradient(
    rollout: Rollout,
    rewards: Tensor,
    timesteps: _Counted,
    accesses: _Counted,
    options: ReinforceOptions,
    values: Tensor | None,
    processes: Processes,
) -> dict[str, Tensor]:
    """Return the summand ``policy``, and ``baseline`` if it is learned.

    Args:
        rollout: What the controller did.
        rewards: Rewards of the timesteps, ``[batch, timesteps]``, without a gradient.
        timesteps: Which timesteps are scored, shaped as ``rewards``.
        accesses: Which accesses count, ``[batch, accesses]``.
        options: Options of the policy gradient.
        values: The learned baseline at every access, shaped as ``accesses``.
        processes: The processes that train together; advantages are normalised over all their accesses.
    """
    summands = {}
    spread = losses.spread_over_accesses(rewards, _accesses_per_output(rollout))
    returns = losses.discounted_returns(spread, options.discount)
    advantages = returns
    if options.baseline == "learned":
        if values is None:
            raise ValueError("Expected the values of the learned baseline, but got none.")
        advantages = returns - values.detach()
        summands["baseline"] = losses.baseline_loss(values, returns, accesses.mask, accesses.count)
    elif options.baseline == "leave_one_out":
        advantages = returns - losses.leave_one_out_baseline(returns, options.rollouts)
    if options.normalize:
        deviations = advantages - processes.mean(accesses.mean(advantages))
        advantages = advantages / (processes.mean(accesses.mean(deviations**2)) + 1e-8).sqrt()
    # Per scored timestep, like the likelihood, so that both together are the gradient of one objective.
    policy = losses.policy_gradient_loss(rollout.log_probs, advantages, accesses.mask, accesses.count)
    summands["policy"] = accesses.count / timesteps.count * policy
    return summands
