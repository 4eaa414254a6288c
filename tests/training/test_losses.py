"""The parts of the objective on tensors worked out by hand, and together against exact policy gradients."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lightning_ham.controllers import LSTMHAM
from lightning_ham.training import losses


def log_odds(p: float) -> float:
    return math.log(p / (1 - p))


# Two episodes of two timesteps of three bits; the second timestep of the second episode is not scored at all.
LOGITS = torch.tensor(
    [
        [[log_odds(0.9), log_odds(0.2), log_odds(0.5)], [log_odds(0.7), log_odds(0.6), log_odds(0.1)]],
        [[log_odds(0.25), log_odds(0.8), log_odds(0.99)], [5.0, -5.0, 7.0]],
    ],
    dtype=torch.float64,
)
TARGETS = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
SCORED = torch.tensor([[[True, True, True], [True, True, False]], [[False, False, True], [False, False, False]]])


def close(got: Tensor, expected: object) -> None:
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_log_likelihood():
    log = math.log
    expected = [[log(0.9) + log(0.8) + log(0.5), log(0.3) + log(0.6)], [log(0.01), 0.0]]
    close(losses.log_likelihood(LOGITS, TARGETS, SCORED), expected)


def test_log_likelihood_of_a_certain_bit_is_finite_with_its_gradient():
    logits = torch.tensor([[[200.0, -200.0, 200.0]]], requires_grad=True)
    likelihood = losses.log_likelihood(logits, torch.tensor([[[1.0, 0.0, 0.0]]]), torch.ones(1, 1, 3, dtype=torch.bool))
    assert likelihood.tolist() == [[-200.0]]
    likelihood.sum().backward()
    assert logits.grad.tolist() == [[[0.0, 0.0, -1.0]]]


def test_log_likelihood_has_no_gradient_from_bits_that_do_not_count():
    logits = LOGITS.clone().requires_grad_()
    losses.log_likelihood(logits, TARGETS, SCORED).sum().backward()
    torch.testing.assert_close(logits.grad, (TARGETS - torch.sigmoid(LOGITS)) * SCORED)


def test_until_first_error_ends_each_episode_after_its_first_wrong_timestep():
    logits = torch.tensor([[[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], [[-1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]])
    targets = torch.tensor([[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]]])
    scored = torch.ones_like(targets).bool()
    assert losses.until_first_error(logits, targets, scored).any(-1).tolist() == [
        [True, True, False],
        [True, False, False],
    ]
    scored[1, 0, 0] = False  # that wrong bit does not count, so it ends nothing
    remaining = losses.until_first_error(logits, targets, scored)
    assert remaining.tolist() == [
        [[True, True], [True, True], [False, False]],
        [[False, True], [True, True], [True, True]],
    ]


def test_masked_mean():
    values = torch.tensor([[1.0, 2.0], [4.0, 100.0]], requires_grad=True)
    mean = losses.masked_mean(values, torch.tensor([[True, True], [True, False]]))
    assert mean.item() == pytest.approx(7 / 3)
    mean.backward()
    torch.testing.assert_close(values.grad, torch.tensor([[1 / 3, 1 / 3], [1 / 3, 0.0]]))


def test_masked_mean_of_nothing_is_zero_with_a_zero_gradient():
    values = torch.tensor([[1.0, 2.0]], requires_grad=True)
    mean = losses.masked_mean(values, torch.zeros(1, 2, dtype=torch.bool))
    assert mean.item() == 0
    mean.backward()
    assert values.grad.tolist() == [[0.0, 0.0]]


def test_spread_over_accesses_rewards_the_last_access_before_each_output():
    rewards = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert torch.equal(losses.spread_over_accesses(rewards, 1), rewards)
    assert losses.spread_over_accesses(rewards, 3).tolist() == [[0, 0, 1, 0, 0, 2], [0, 0, 3, 0, 0, 4]]


@pytest.mark.parametrize(
    ("discount", "expected"),
    [
        (1.0, [[7.0, 6.0, 4.0], [0.0, -1.0, 0.0]]),
        (0.5, [[3.0, 4.0, 4.0], [0.5, -1.0, 0.0]]),
        (0.0, [[1.0, 2.0, 4.0], [1.0, -1.0, 0.0]]),
    ],
)
def test_discounted_returns(discount, expected):
    rewards = torch.tensor([[1.0, 2.0, 4.0], [1.0, -1.0, 0.0]])
    before = rewards.clone()
    assert losses.discounted_returns(rewards, discount).tolist() == expected
    assert torch.equal(rewards, before)


def test_leave_one_out_baseline():
    # Two episodes of three rollouts each, which stand together.
    returns = torch.tensor([[1.0, 0.0], [2.0, 6.0], [6.0, 3.0], [10.0, 1.0], [20.0, 1.0], [60.0, 4.0]])
    expected = [[4.0, 4.5], [3.5, 1.5], [1.5, 3.0], [40.0, 2.5], [35.0, 2.5], [15.0, 1.0]]
    assert losses.leave_one_out_baseline(returns, 3).tolist() == expected
    of_two = [[2.0, 6.0], [1.0, 0.0], [10.0, 1.0], [6.0, 3.0], [60.0, 4.0], [20.0, 1.0]]
    assert losses.leave_one_out_baseline(returns, 2).tolist() == of_two


@pytest.mark.parametrize("rollouts", [1, 0])
def test_leave_one_out_needs_another_rollout(rollouts):
    with pytest.raises(
        ValueError,
        match=rf"^Expected at least 2 rollouts per episode for a leave-one-out baseline, but got {rollouts}\.$",
    ):
        losses.leave_one_out_baseline(torch.zeros(4, 2), rollouts)


def test_policy_gradient_loss():
    log_probs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    advantages = torch.tensor([[0.5, -1.0], [2.0, 100.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    loss = losses.policy_gradient_loss(log_probs, advantages, mask)
    assert loss.item() == pytest.approx(-(-0.5 + 2.0 - 6.0) / 3)
    loss.backward()
    torch.testing.assert_close(log_probs.grad, torch.tensor([[-0.5, 1.0], [-2.0, 0.0]]) / 3)
    assert advantages.grad is None


def test_baseline_loss():
    values = torch.tensor([[1.0, 2.0], [3.0, 50.0]], requires_grad=True)
    returns = torch.tensor([[0.0, 4.0], [3.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    loss = losses.baseline_loss(values, returns, mask)
    assert loss.item() == pytest.approx((1 + 4 + 0) / 3)
    loss.backward()
    torch.testing.assert_close(values.grad, torch.tensor([[2.0, -4.0], [0.0, 0.0]]) / 3)
    assert returns.grad is None


def test_losses_of_nothing_are_zero():
    nothing, some = torch.zeros(1, 2, dtype=torch.bool), torch.ones(1, 2)
    assert losses.policy_gradient_loss(some, some, nothing).item() == 0
    assert losses.baseline_loss(some, 3 * some, nothing).item() == 0


# Together: the policy gradient of a small LSTM+HAM, whose every path is known.

INPUT_SIZE, OUTPUT_SIZE, TIMESTEPS = 3, 2, 2
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Paths(NamedTuple):
    """One episode in a tree of two leaves, on every path that it can take."""

    model: LSTMHAM
    log_probs: Tensor
    """`[paths, accesses]`"""
    rewards: Tensor
    """`[paths, accesses]`: the log-likelihood, with gradients"""
    states: Tensor
    """`[paths, accesses, controller_size]`"""

    @property
    def probabilities(self) -> Tensor:
        """Of the paths, with gradients."""
        return self.log_probs.sum(1).exp()

    def gradient(self, total: Tensor) -> Tensor:
        gradients = torch.autograd.grad(total, list(self.model.parameters()), retain_graph=True, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in gradients])


def all_paths(accesses_per_output: int) -> Paths:
    torch.manual_seed(0)
    model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, controller_size=4, leaf_size=4, accesses_per_output=accesses_per_output)
    with torch.no_grad():
        model.head.weight *= 5  # so that rewards differ between the paths
    batch, accesses = 2000, TIMESTEPS * accesses_per_output
    inputs = 3 * torch.randn(1, 2, INPUT_SIZE)
    rollout = model(
        inputs.expand(batch, -1, -1),
        torch.ones(batch, 2, dtype=torch.bool),
        TIMESTEPS,
        "reinforce",
        torch.Generator().manual_seed(1),
    )
    targets = (torch.rand(1, TIMESTEPS, OUTPUT_SIZE) < 0.5).double().expand(batch, -1, -1)
    rewards = losses.log_likelihood(rollout.outputs, targets, torch.ones_like(targets, dtype=torch.bool))
    rewards = losses.spread_over_accesses(rewards, accesses_per_output)
    number_of = (rollout.leaves * 2 ** torch.arange(accesses)).sum(1)
    first = [int((number_of == path).nonzero()[0]) for path in range(2**accesses)]
    return Paths(model, rollout.log_probs[first], rewards[first], rollout.states[first])


def expected_policy_gradient(paths: Paths, discount: float) -> Tensor:
    """The gradient by way of the choices alone of what each of them expects: its discounted rewards from then on.

    Choice t and reward i of each path add `discount^(i - t) * reward * d(probability)`, where only the probability
    of choice t varies. For a discount of 1 this is the gradient of the expected reward.
    """
    total = torch.zeros(())
    choices = paths.log_probs.exp()
    for t in range(choices.shape[1]):
        others = torch.cat((choices[:, :t], choices[:, t + 1 :]), dim=1).prod(1).detach()
        for i in range(t, choices.shape[1]):
            total = total + discount ** (i - t) * (choices[:, t] * others) @ paths.rewards[:, i].detach()
    return paths.gradient(total)


def estimated_policy_gradient(
    paths: Paths, log_probs: Tensor, advantages: Tensor, weights: Tensor, rollouts: int = 1
) -> Tensor:
    """The mean, by these weights `[batch]` of the rollouts, of the gradient that the loss gives."""
    mask = torch.ones_like(log_probs, dtype=torch.bool)
    loss = losses.policy_gradient_loss(log_probs, advantages * weights.unsqueeze(1), mask)
    return -paths.gradient(loss * mask.sum() / rollouts)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("accesses_per_output", [1, 2])
class TestPolicyGradient:
    def test_the_paths_are_all(self, accesses_per_output):
        paths = all_paths(accesses_per_output)
        assert paths.probabilities.sum().item() == pytest.approx(1, abs=1e-12)
        assert paths.rewards.sum(1).std() > 0.1
        assert paths.states.std(0).max() > 0.01

    def test_undiscounted_is_the_gradient_of_the_expected_reward(self, accesses_per_output):
        paths = all_paths(accesses_per_output)
        returns = losses.discounted_returns(paths.rewards, 1.0)
        p = paths.probabilities.detach()
        estimate = estimated_policy_gradient(paths, paths.log_probs, returns, p)
        through_the_rewards = paths.gradient(p @ paths.rewards.sum(1))
        exact = paths.gradient(paths.probabilities @ paths.rewards.sum(1))
        torch.testing.assert_close(estimate + through_the_rewards, exact, **EXACT)
        assert not torch.allclose(through_the_rewards, exact, atol=1e-3)

    @pytest.mark.parametrize("discount", [0.0, 0.6, 1.0])
    def test_discounted_returns_give_the_discounted_gradient(self, accesses_per_output, discount):
        paths = all_paths(accesses_per_output)
        returns = losses.discounted_returns(paths.rewards, discount)
        estimate = estimated_policy_gradient(paths, paths.log_probs, returns, paths.probabilities.detach())
        torch.testing.assert_close(estimate, expected_policy_gradient(paths, discount), **EXACT)

    @pytest.mark.parametrize("discount", [0.6, 1.0])
    def test_a_baseline_of_the_recorded_states_does_not_bias(self, accesses_per_output, discount):
        paths = all_paths(accesses_per_output)
        returns = losses.discounted_returns(paths.rewards, discount)
        baseline = torch.nn.Linear(paths.states.shape[-1], 1)
        values = 10 * baseline(paths.states).squeeze(-1)
        estimate = estimated_policy_gradient(paths, paths.log_probs, returns - values, paths.probabilities.detach())
        torch.testing.assert_close(estimate, expected_policy_gradient(paths, discount), **EXACT)

    @pytest.mark.parametrize("rollouts", [2, 3])
    def test_leave_one_out_does_not_bias(self, accesses_per_output, rollouts):
        paths = all_paths(accesses_per_output)
        groups = torch.tensor(list(itertools.product(range(len(paths.rewards)), repeat=rollouts)))
        members = groups.flatten()
        weights = paths.probabilities.detach()[groups].prod(1).repeat_interleave(rollouts)
        returns = losses.discounted_returns(paths.rewards[members], 0.6)
        advantages = returns - losses.leave_one_out_baseline(returns, rollouts)
        estimate = estimated_policy_gradient(paths, paths.log_probs[members], advantages, weights, rollouts=rollouts)
        torch.testing.assert_close(estimate, expected_policy_gradient(paths, 0.6), **EXACT)


def test_log_prior_is_the_mean_under_the_branches_of_that_of_the_prior():
    branch_probs = torch.tensor([[[0.5, 1.0], [0.0, 0.25]]])
    right, left = math.log(0.2), math.log(0.8)
    expected = [[0.5 * right + 0.5 * left + right, left + 0.25 * right + 0.75 * left]]
    torch.testing.assert_close(losses.log_prior(branch_probs, 0.2), torch.tensor(expected))
    # Where the branches are the prior's, it is minus their entropy.
    entropy = -(0.2 * right + 0.8 * left)
    torch.testing.assert_close(losses.log_prior(torch.full((1, 1, 1), 0.2), 0.2), torch.tensor([[-entropy]]))
