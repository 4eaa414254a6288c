"""One access, and short episodes of them, against a memory written independently as a heap of vectors.

The gradient estimators are held against exact gradients: every sequence of leaves is enumerated.
"""

import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_ham import HierarchicalAttentiveMemory
from lightning_ham.memory import Access, Tree
from lightning_ham.memory.attention.descent import went_right
from lightning_ham.memory.attention.estimator import Estimator

INPUT_SIZE, QUERY_SIZE, LEAF_SIZE, HIDDEN_SIZE = 2, 3, 3, 8
MODES = ["reinforce", "straight_through", "soft", "argmax"]
HARD = ["reinforce", "straight_through", "argmax"]
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_memory(**options) -> HierarchicalAttentiveMemory:
    """A memory whose branches are neither even nor certain, and differ from episode to episode."""
    options = {"leaf_size": LEAF_SIZE, "hidden_size": HIDDEN_SIZE} | options
    memory = HierarchicalAttentiveMemory(INPUT_SIZE, QUERY_SIZE, **options)
    with torch.no_grad():
        memory.embed.blank.normal_()
        tree = memory.init(torch.randn(200, 4, INPUT_SIZE))
        logits = memory.search(tree.nodes[:, 1:4], torch.randn(200, QUERY_SIZE))
        memory.search.out.bias -= logits.mean()
        for parameter in memory.search.out.parameters():
            parameter /= 2 * logits.std()
    return memory


def bits(leaf: int, depth: int) -> list[int]:
    """The branches that lead to a leaf, 1 for right, from the root down."""
    return [leaf >> shift & 1 for shift in reversed(range(depth))]


class PlainMemory:
    """One episode's memory: a dictionary of nodes by heap row, wholly rebuilt after every write."""

    def __init__(self, memory: HierarchicalAttentiveMemory, leaves: list[Tensor]) -> None:
        self.memory = memory
        self.num_leaves = len(leaves)
        self.depth = int(math.log2(len(leaves)))
        self.nodes = {len(leaves) + index: leaf for index, leaf in enumerate(leaves)}
        for row in reversed(range(1, len(leaves))):
            self.nodes[row] = memory.join(self.nodes[2 * row], self.nodes[2 * row + 1])

    @classmethod
    def of_inputs(cls, memory: HierarchicalAttentiveMemory, inputs: Tensor, occupied: Tensor) -> "PlainMemory":
        """From the cells `[num_leaves, input_size]` of one episode, embedded one by one."""
        cells = zip(inputs, occupied, strict=True)
        return cls(memory, [memory.embed(cell.view(1, 1, -1), full.view(1, 1)).view(-1) for cell, full in cells])

    @property
    def leaves(self) -> list[Tensor]:
        return [self.nodes[self.num_leaves + index] for index in range(self.num_leaves)]

    def logit(self, row: int, query: Tensor) -> Tensor:
        return self.memory.search(self.nodes[row].view(1, 1, -1), query.view(1, -1)).view(())

    def path_logits(self, leaf: int, query: Tensor) -> list[Tensor]:
        return [self.logit((self.num_leaves + leaf) >> up, query) for up in range(self.depth, 0, -1)]

    def log_prob(self, leaf: int, query: Tensor) -> Tensor:
        log_prob = torch.zeros(())
        for logit, right in zip(self.path_logits(leaf, query), bits(leaf, self.depth), strict=True):
            p = torch.sigmoid(logit)
            log_prob = log_prob + torch.log(p if right else 1 - p)
        return log_prob

    def probabilities(self, query: Tensor, row: int = 1) -> list[Tensor]:
        """Of the leaves below `row`, from left to right."""
        if row >= self.num_leaves:
            return [torch.ones(())]
        right = torch.sigmoid(self.logit(row, query))
        left_leaves = [(1 - right) * p for p in self.probabilities(query, 2 * row)]
        return left_leaves + [right * p for p in self.probabilities(query, 2 * row + 1)]

    def written(self, leaf: Tensor, query: Tensor) -> Tensor:
        return self.memory.write_leaf(leaf.view(1, -1), query.view(1, -1)).view(-1)

    def write(self, leaf: int, query: Tensor) -> "PlainMemory":
        leaves = self.leaves
        leaves[leaf] = self.written(leaves[leaf], query)
        return PlainMemory(self.memory, leaves)

    def write_softly(self, weights: list[Tensor], query: Tensor) -> "PlainMemory":
        return PlainMemory(
            self.memory,
            [p * self.written(leaf, query) + (1 - p) * leaf for p, leaf in zip(weights, self.leaves, strict=True)],
        )


class Network(nn.Module):
    """The least that makes a memory a network: a learned first query, and the next from a read. No task."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.memory = make_memory(**options)
        self.first_query = nn.Parameter(torch.randn(QUERY_SIZE))
        self.step = nn.Linear(LEAF_SIZE, QUERY_SIZE)

    def next_query(self, read: Tensor, query: Tensor) -> Tensor:
        return torch.tanh(self.step(read) + 2 * query)


def reward(read: Tensor, time: int) -> Tensor:
    """A reward of each read `[..., leaf_size]` that is not linear in it, and another at each time."""
    weights = torch.linspace(-2.0, 3.0, LEAF_SIZE) * (time + 1)
    return torch.sin(read * weights).sum(-1) - (read**2).sum(-1) * time


class Run(NamedTuple):
    rewards: Tensor
    """`[batch, accesses]`"""
    log_probs: Tensor
    """`[batch, accesses]`"""
    leaves: Tensor
    """`[batch, accesses]`"""


def run(network: Network, inputs: Tensor, occupied: Tensor, accesses: int, mode: str, seed: int = 0) -> Run:
    """Episodes through the package."""
    memory, generator = network.memory, seeded(seed)
    tree = memory.init(inputs, occupied)
    query = network.first_query.expand(len(inputs), -1)
    rewards, log_probs, leaves = [], [], []
    for time in range(accesses):
        access = memory.attend(tree, query, mode, generator)
        query = network.next_query(access.read, query)
        tree = memory.write(access, query)
        rewards.append(reward(access.read, time))
        log_probs.append(access.log_prob)
        leaves.append(access.leaf)
    return Run(torch.stack(rewards, 1), torch.stack(log_probs, 1), torch.stack(leaves, 1))


def follow(network: Network, inputs: Tensor, occupied: Tensor, leaves: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The total reward of one episode that attends to the given leaves, and its log-probability."""
    plain = PlainMemory.of_inputs(network.memory, inputs, occupied)
    query = network.first_query
    total, log_prob = torch.zeros(()), torch.zeros(())
    for time, leaf in enumerate(leaves):
        log_prob = log_prob + plain.log_prob(leaf, query)
        read = plain.leaves[leaf]
        total = total + reward(read, time)
        query = network.next_query(read, query)
        plain = plain.write(leaf, query)
    return total, log_prob


def flat_gradient(total: Tensor, network: nn.Module, *, retain: bool = False) -> Tensor:
    gradients = torch.autograd.grad(total, list(network.parameters()), materialize_grads=True, retain_graph=retain)
    return torch.cat([gradient.flatten() for gradient in gradients])


def one_episode(num_leaves: int) -> tuple[Tensor, Tensor]:
    """The cells of one episode, and which of them are occupied: all but the last, if there are many."""
    occupied = torch.ones(num_leaves, dtype=torch.bool)
    occupied[-1] = num_leaves <= 2
    return torch.randn(num_leaves, INPUT_SIZE), occupied


def copies(inputs: Tensor, occupied: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    return inputs.expand(batch, -1, -1), occupied.expand(batch, -1)


# Building.


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    depth=st.integers(0, 6),
    join=st.sampled_from(["gated", "choice", "mlp"]),
    data=st.data(),
)
def test_init_and_writes_keep_the_tree_that_a_full_rebuild_makes(batch, depth, join, data):
    torch.manual_seed(data.draw(st.integers(0, 2**32)))
    memory = make_memory(join=join)
    occupied = torch.rand(batch, 2**depth) < 0.7
    inputs = torch.randn(batch, 2**depth, INPUT_SIZE)
    tree = memory.init(inputs, occupied)
    plain = [PlainMemory.of_inputs(memory, *episode) for episode in zip(inputs, occupied, strict=True)]
    for mode in ("argmax", "reinforce", "straight_through"):
        query, written_by = torch.randn(2, batch, QUERY_SIZE)
        access = memory.attend(tree, query, mode)
        tree = memory.write(access, written_by)
        for episode, leaf in enumerate(access.leaf.tolist()):
            torch.testing.assert_close(access.read[episode], plain[episode].leaves[leaf], **EXACT)
            plain[episode] = plain[episode].write(leaf, written_by[episode])
            for row, node in plain[episode].nodes.items():
                torch.testing.assert_close(tree.nodes[episode, row], node, **EXACT)


def test_all_leaves_are_occupied_if_not_told():
    memory, inputs = make_memory(), torch.randn(2, 4, INPUT_SIZE)
    everywhere = memory.init(inputs, torch.ones(2, 4, dtype=torch.bool))
    assert torch.equal(memory.init(inputs).nodes, everywhere.nodes)


def test_inputs_of_blank_leaves_change_nothing():
    memory = make_memory()
    inputs, occupied = torch.randn(2, 4, INPUT_SIZE), torch.tensor([[True, True, False, False]] * 2)
    others = torch.where(occupied.unsqueeze(-1), inputs, 100 * torch.randn(2, 4, INPUT_SIZE))
    assert torch.equal(memory.init(inputs, occupied).nodes, memory.init(others, occupied).nodes)


@torch.no_grad()
def test_cells_get_noise_in_training_only():
    memory, inputs = make_memory(), torch.randn(50, 64, INPUT_SIZE)
    occupied = torch.rand(50, 64) < 0.5
    plain = memory.embed(inputs, occupied)
    assert torch.equal(memory.embed_cells(inputs, occupied), plain)
    memory.cell_noise = 2.0
    noisy = memory.embed_cells(inputs, occupied, torch.Generator().manual_seed(0))
    assert torch.equal(noisy, memory.embed_cells(inputs, occupied, torch.Generator().manual_seed(0)))
    noise = (noisy - plain) / 2
    assert noise.mean().abs() < 0.05
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert noise[~occupied].std().item() == pytest.approx(1, abs=0.05), "blank cells too"
    memory.eval()
    assert torch.equal(memory.embed_cells(inputs, occupied), plain)


@pytest.mark.parametrize("num_leaves", [3, 6, 33])
def test_number_of_leaves_must_be_a_power_of_two(num_leaves):
    with pytest.raises(
        ValueError, match=rf"^Expected the number of leaves to be a power of two, but got {num_leaves}\.$"
    ):
        make_memory().init(torch.zeros(1, num_leaves, INPUT_SIZE))


# One access.


def filled(memory: HierarchicalAttentiveMemory, batch: int, num_leaves: int) -> tuple[Tree, Tensor]:
    return memory.init(torch.randn(batch, num_leaves, INPUT_SIZE)), torch.randn(batch, QUERY_SIZE)


@pytest.mark.parametrize("mode", HARD)
@pytest.mark.parametrize("num_leaves", [1, 2, 16])
def test_the_forward_value_of_a_hard_read_is_the_attended_leaf_itself(mode, num_leaves):
    memory = make_memory()
    tree, query = filled(memory, 64, num_leaves)
    access = memory.attend(tree, query, mode, seeded(1))
    assert torch.equal(access.read, tree.leaves[torch.arange(64), access.leaf])
    assert access.weights.shape == (64, 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_leaves", [1, 2, 8])
def test_an_access_describes_the_path_to_its_leaf(mode, num_leaves):
    memory = make_memory()
    tree, query = filled(memory, 16, num_leaves)
    access = memory.attend(tree, query, mode, seeded(1))
    for episode, leaf in enumerate(access.leaf.tolist()):
        plain = PlainMemory(memory, list(tree.leaves[episode]))
        outcome = bits(leaf, tree.depth)
        assert went_right(access.leaf, tree.depth)[episode].tolist() == outcome
        logits = [logit.item() for logit in plain.path_logits(leaf, query[episode])]
        assert access.logits[episode].tolist() == pytest.approx(logits, rel=1e-12)

        p = [1 / (1 + math.exp(-logit)) for logit in logits]
        log_prob = sum(math.log(q if right else 1 - q) for q, right in zip(p, outcome, strict=True))
        entropy = sum(-q * math.log(q) - (1 - q) * math.log(1 - q) for q in p)
        assert access.log_prob[episode].item() == pytest.approx(log_prob, rel=1e-12)
        if mode == "soft":  # of the choice of a leaf, as there is no one path
            entropy = -sum(weight * math.log(weight) for weight in access.weights[episode].tolist())
        assert access.entropy[episode].item() == pytest.approx(entropy, rel=1e-12, abs=1e-15)

        row = num_leaves + leaf
        path = [row >> up for up in range(tree.depth, -1, -1)]
        assert torch.equal(access.path[episode], tree.nodes[episode, path])
        assert torch.equal(access.siblings[episode], tree.nodes[episode, [below ^ 1 for below in path[1:]]])
    assert access.siblings.shape == (16, tree.depth, LEAF_SIZE)
    assert access.tree is tree


def access_with(logits: Tensor, leaf: Tensor) -> Access:
    nodes, depth = torch.zeros(len(leaf), 2 ** (logits.shape[1] + 1), 1), logits.shape[1]
    return Access(
        nodes[:, 0], leaf, logits, nodes[:, : depth + 1], nodes[:, :depth], torch.zeros(len(leaf), 0), Tree(nodes)
    )


def test_log_prob_and_entropy_are_those_of_bernoullis_with_their_gradients():
    logits = torch.randn(32, 5, requires_grad=True)
    leaf = torch.arange(32)
    access = access_with(logits, leaf)
    distribution = torch.distributions.Bernoulli(logits=logits)
    outcome = torch.tensor([bits(index, 5) for index in range(32)])
    for got, expected in (
        (access.log_prob, distribution.log_prob(outcome.double()).sum(1)),
        (access.entropy, distribution.entropy().sum(1)),
    ):
        torch.testing.assert_close(got, expected)
        weights = torch.randn(32)
        gradients = [torch.autograd.grad((value * weights).sum(), logits)[0] for value in (got, expected)]
        torch.testing.assert_close(*gradients)
    assert torch.equal(went_right(leaf, 5), outcome)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_and_entropy_of_certain_branches_are_finite(dtype):
    logits = torch.tensor([[1000.0], [-1000.0], [1000.0], [-1000.0]], dtype=dtype, requires_grad=True)
    access = access_with(logits, torch.tensor([1, 0, 0, 1]))
    assert access.log_prob.tolist() == [0.0, 0.0, -1000.0, -1000.0]
    assert access.entropy.tolist() == [0.0] * 4
    (gradient,) = torch.autograd.grad(access.log_prob.sum() + access.entropy.sum(), logits)
    assert gradient.flatten().tolist() == [0.0, 0.0, -1.0, 1.0]


@pytest.mark.parametrize("mode", HARD)
@pytest.mark.parametrize("num_leaves", [1, 2, 8])
def test_a_write_changes_its_leaf_and_that_leafs_ancestors_only(mode, num_leaves):
    memory = make_memory()
    tree, query = filled(memory, 16, num_leaves)
    access = memory.attend(tree, query, mode, seeded(2))
    differs = (memory.write(access, query).nodes != tree.nodes).any(-1)
    for episode, leaf in enumerate(access.leaf.tolist()):
        expected = {(num_leaves + leaf) >> up for up in range(tree.depth + 1)}
        assert set(differs[episode].nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("mode", MODES)
def test_in_place_equals_functional_and_functional_leaves_its_tree_alone(mode):
    memory = make_memory()
    memory.engine = "sparse"  # compiled loops round otherwise
    tree, query = filled(memory, 8, 8)
    with torch.no_grad():
        before = tree.nodes.clone()
        access = memory.attend(tree, query, mode, seeded(3))
        functional = memory.write(access, query)
        assert torch.equal(tree.nodes, before)
        in_place = memory.write(access, query, in_place=True)
    assert torch.equal(in_place.nodes, functional.nodes)
    assert not torch.equal(functional.nodes, before)
    if mode != "soft":
        assert in_place.nodes.data_ptr() == tree.nodes.data_ptr()


@pytest.mark.parametrize("mode", MODES)
def test_no_episode_depends_on_another(mode):
    memory = make_memory()
    inputs, query = torch.randn(6, 8, INPUT_SIZE), torch.randn(6, QUERY_SIZE)
    others, other_query = torch.randn(6, 8, INPUT_SIZE), torch.randn(6, QUERY_SIZE)
    others[2], other_query[2] = inputs[2], query[2]
    results = []
    for cells, state in ((inputs, query), (others, other_query)):
        tree = memory.init(cells)
        access = memory.attend(tree, state, mode, seeded(4))
        results.append((access.leaf, access.read, access.logits, memory.write(access, state).nodes))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first[2], second[2], **EXACT)
    for episode in (0, 1, 3, 4, 5):
        assert not torch.allclose(results[0][1][episode], results[1][1][episode])


@pytest.mark.parametrize("mode", ["argmax", "soft"])
def test_the_order_of_a_batch_does_not_matter(mode):
    memory = make_memory()
    inputs, query = torch.randn(6, 8, INPUT_SIZE), torch.randn(6, QUERY_SIZE)
    occupied = torch.rand(6, 8) < 0.5
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    results = []
    for index in (order, torch.arange(6)):
        tree = memory.init(inputs[index], occupied[index])
        access = memory.attend(tree, query[index], mode)
        results.append((access.read, access.leaf, access.logits, memory.write(access, query[index]).nodes))
    for permuted, straight in zip(*results, strict=True):
        torch.testing.assert_close(permuted, straight[order], **EXACT)


@pytest.mark.parametrize("mode", ["reinforce", "straight_through"])
def test_samples_come_from_the_generator(mode):
    memory = make_memory()
    tree, query = filled(memory, 64, 16)

    def leaves(seed: int) -> Tensor:
        return memory.attend(tree, query, mode, seeded(seed)).leaf

    before = torch.get_rng_state()
    assert torch.equal(leaves(5), leaves(5))
    assert not torch.equal(leaves(5), leaves(6))
    assert torch.equal(torch.get_rng_state(), before)

    samples = [memory.attend(tree, query, mode).leaf for _ in range(2)]
    assert not torch.equal(*samples)
    torch.set_rng_state(before)
    assert torch.equal(memory.attend(tree, query, mode).leaf, samples[0])


@pytest.mark.parametrize("mode", ["argmax", "soft"])
def test_modes_without_samples_draw_none(mode):
    memory = make_memory()
    tree, query = filled(memory, 4, 4)
    before = torch.get_rng_state()
    memory.attend(tree, query, mode)
    assert torch.equal(torch.get_rng_state(), before)


def test_attend_is_deterministic_if_not_told():
    memory = make_memory()
    tree, query = filled(memory, 64, 16)
    assert torch.equal(memory.attend(tree, query).leaf, memory.attend(tree, query, "argmax").leaf)


def test_unknown_mode():
    memory = make_memory()
    tree, query = filled(memory, 1, 2)
    with pytest.raises(ValueError, match=r"Expected argument `attention` to be one of .* but got 'softmax'"):
        memory.attend(tree, query, "softmax")


# Soft attention is the paper's Appendix A, exactly.


def soft_reference(network: Network, inputs: Tensor, occupied: Tensor, accesses: int) -> tuple[Tensor, list]:
    plain = PlainMemory.of_inputs(network.memory, inputs, occupied)
    query = network.first_query
    total, weights = torch.zeros(()), []
    for time in range(accesses):
        weights.append(plain.probabilities(query))
        read = sum(p * leaf for p, leaf in zip(weights[-1], plain.leaves, strict=True))
        total = total + reward(read, time)
        query = network.next_query(read, query)
        plain = plain.write_softly(weights[-1], query)
    return total, weights


@pytest.mark.parametrize("num_leaves", [1, 2, 4, 8])
def test_soft_attention_equals_its_dense_formula_with_its_gradient(num_leaves):
    network = Network()
    episodes = [one_episode(num_leaves) for _ in range(3)]
    inputs, occupied = map(torch.stack, zip(*episodes, strict=True))
    got = run(network, inputs, occupied, 3, "soft").rewards.sum(1)
    references = [soft_reference(network, *episode, 3) for episode in episodes]
    expected = torch.stack([total for total, _ in references])
    torch.testing.assert_close(got, expected, **EXACT)
    mixture = torch.randn(3)
    torch.testing.assert_close(
        flat_gradient(got @ mixture, network), flat_gradient(expected @ mixture, network), **EXACT
    )


def test_soft_access_tells_the_weights_and_the_most_probable_leaf():
    network = Network()
    inputs, occupied = one_episode(8)
    _, (expected,) = soft_reference(network, inputs, occupied, 1)
    tree = network.memory.init(inputs.unsqueeze(0), occupied.unsqueeze(0))
    access = network.memory.attend(tree, network.first_query.unsqueeze(0), "soft")
    torch.testing.assert_close(access.weights[0], torch.stack(expected), **EXACT)
    assert access.leaf.tolist() == [torch.stack(expected).argmax().item()]


# Straight-through, given the same noise.


def descend_from(row: int, level: int, column: int, plain: PlainMemory, query: Tensor, rounds: list[Tensor]) -> int:
    """The row of the leaf that a descent from `row`, at `level`, reaches with the noise of its column."""
    for noise in rounds[level:]:
        row = 2 * row + bool(plain.logit(row, query) + noise[column] > 0)
    return row


def straight_through_reference(
    network: Network,
    inputs: Tensor,
    occupied: Tensor,
    noises: list[list[Tensor]],
) -> tuple[Tensor, list[int]]:
    """One episode's total reward and leaves, given its `noises` of each access and round."""
    plain = PlainMemory.of_inputs(network.memory, inputs, occupied)
    query = network.first_query
    total, leaves = torch.zeros(()), []
    for time, rounds in enumerate(noises):
        row, correction = 1, torch.zeros(LEAF_SIZE)
        end = descend_from(1, 0, 0, plain, query, rounds)
        for level in range(plain.depth):
            perturbed = plain.logit(row, query) + rounds[level][0]
            p = torch.sigmoid(perturbed)
            went_right = bool(perturbed > 0)
            sibling = 2 * row + (not went_right)
            other = descend_from(sibling, level + 1, level + 1, plain, query, rounds)
            right, left = (end, other) if went_right else (other, end)
            difference = (plain.nodes[right] - plain.nodes[left]).detach()
            correction = correction + (p - p.detach()) * difference
            row = 2 * row + went_right
        assert row == end
        read = plain.nodes[end] + correction
        leaves.append(end - plain.num_leaves)
        total = total + reward(read, time)
        query = network.next_query(read, query)
        plain = plain.write(leaves[-1], query)
    return total, leaves


@pytest.mark.parametrize(("num_leaves", "accesses"), [(1, 1), (2, 2), (4, 2), (8, 3)])
def test_straight_through_equals_its_formula_with_its_gradient(monkeypatch, num_leaves, accesses):
    batch = 5
    network = Network()
    episodes = [one_episode(num_leaves) for _ in range(batch)]
    inputs, occupied = map(torch.stack, zip(*episodes, strict=True))

    noises = []

    draw_noise = Estimator.draw_noise

    def record(*args, **options) -> Tensor:
        noises.append(draw_noise(*args, **options))
        return noises[-1]

    monkeypatch.setattr(Estimator, "draw_noise", record)
    got = run(network, inputs, occupied, accesses, "straight_through", seed=7)
    assert len(noises) == accesses
    widths = list(range(1, int(math.log2(num_leaves)) + 1))

    expected = []
    for index, episode in enumerate(episodes):
        by_access = [list(noise[index].split(widths)) if widths else [] for noise in noises]
        total, leaves = straight_through_reference(network, *episode, by_access)
        assert got.leaves[index].tolist() == leaves
        expected.append(total)
    totals, expected = got.rewards.sum(1), torch.stack(expected)
    torch.testing.assert_close(totals, expected, **EXACT)
    mixture = torch.randn(batch)
    torch.testing.assert_close(
        flat_gradient(totals @ mixture, network), flat_gradient(expected @ mixture, network), **EXACT
    )


def test_straight_through_has_no_gradient_beside_the_path():
    memory = make_memory()
    built, query = filled(memory, 32, 16)
    nodes = built.nodes.detach().requires_grad_()
    access = memory.attend(Tree(nodes), query, "straight_through", seeded(8))
    (gradient,) = torch.autograd.grad(access.read.pow(2).sum(), nodes)
    reached = (gradient != 0).any(-1)
    inner_nodes_reached = 0
    for episode, leaf in enumerate(access.leaf.tolist()):
        rows = reached[episode].nonzero().flatten().tolist()
        path = [(16 + leaf) >> up for up in range(4, -1, -1)]
        assert rows[-1] == path[-1]
        assert set(rows) <= set(path)
        inner_nodes_reached += len(rows) - 1
    assert inner_nodes_reached > 64, "where SEARCH's hidden layer is not silent, the branches get a gradient"


def test_reinforce_and_argmax_send_no_gradient_from_the_read_to_the_branches():
    memory = make_memory()
    tree, query = filled(memory, 32, 16)
    for mode in ("reinforce", "argmax"):
        read = memory.attend(tree, query, mode).read
        gradients = torch.autograd.grad(
            read.sum(), list(memory.search.parameters()), materialize_grads=True, retain_graph=True
        )
        assert not any(gradient.any() for gradient in gradients)


# REINFORCE, against the exact gradient of the expected reward.


def all_paths(num_leaves: int, accesses: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(num_leaves), repeat=accesses))


def exact(network: Network, inputs: Tensor, occupied: Tensor, accesses: int) -> tuple[Tensor, Tensor, Tensor]:
    """The expected reward, the paths' probabilities, and REINFORCE's gradient `[paths, parameters]`."""
    expected, probabilities, gradients = torch.zeros(()), [], []
    for leaves in all_paths(inputs.shape[0], accesses):
        total, log_prob = follow(network, inputs, occupied, leaves)
        expected = expected + log_prob.exp() * total
        probabilities.append(log_prob.exp().detach())
        gradients.append(flat_gradient(total + total.detach() * log_prob, network, retain=True))
    return expected, torch.stack(probabilities), torch.stack(gradients)


@pytest.mark.parametrize("accesses", [1, 2])
@pytest.mark.parametrize("num_leaves", [2, 4])
def test_reinforce_weighted_by_each_paths_probability_is_the_exact_gradient(num_leaves, accesses):
    network = Network()
    episode = one_episode(num_leaves)
    expected, probabilities, _ = exact(network, *episode, accesses)
    assert probabilities.sum().item() == pytest.approx(1)

    sampled = run(network, *copies(*episode, 4000), accesses, "reinforce", seed=9)
    place = torch.zeros(4000, dtype=torch.long)
    for leaf in sampled.leaves.unbind(1):
        place = place * num_leaves + leaf
    counts = place.bincount(minlength=len(probabilities))
    assert counts.all(), "a path was not sampled at all"
    weights = (probabilities / counts)[place]
    totals = sampled.rewards.sum(1)
    torch.testing.assert_close(weights @ totals, expected, **EXACT)
    surrogate = weights @ (totals + totals.detach() * sampled.log_probs.sum(1))
    torch.testing.assert_close(flat_gradient(surrogate, network), flat_gradient(expected, network), **EXACT)


@pytest.mark.parametrize("accesses", [1, 2])
@pytest.mark.parametrize("num_leaves", [2, 4])
def test_reinforce_is_unbiased_within_its_standard_error(num_leaves, accesses):
    batch = 20_000
    network = Network()
    episode = one_episode(num_leaves)
    expected, probabilities, of_paths = exact(network, *episode, accesses)
    gradient = flat_gradient(expected, network)
    mean = probabilities @ of_paths
    standard_error = (probabilities @ (of_paths - mean) ** 2 / batch).sqrt()

    sampled = run(network, *copies(*episode, batch), accesses, "reinforce", seed=10)
    totals = sampled.rewards.sum(1)
    surrogate = (totals + totals.detach() * sampled.log_probs.sum(1)).mean()
    deviation = (flat_gradient(surrogate, network) - gradient).abs()
    assert (deviation < 4.5 * standard_error + 1e-10).all()


# Options.


def root_and_shapes(**options) -> tuple[Tensor, list[torch.Size]]:
    torch.manual_seed(2)
    memory = HierarchicalAttentiveMemory(INPUT_SIZE, QUERY_SIZE, **options)
    tree = memory.init(torch.linspace(-1, 1, 4 * INPUT_SIZE).view(1, 4, INPUT_SIZE))
    return tree.root, [parameter.shape for parameter in memory.parameters()]


@pytest.mark.parametrize(
    ("option", "values"),
    [("leaf_size", (8, 32)), ("hidden_size", (8, 32)), ("join", ("mlp", "gated")), ("real_inputs", (1, 0))],
)
def test_every_option_changes_the_memory_and_the_second_value_is_the_default(option, values):
    other, default = (root_and_shapes(**{option: value}) for value in values)
    assert other[0].shape != default[0].shape or not torch.allclose(other[0], default[0])
    assert other[1] != default[1]
    root, shapes = root_and_shapes()
    assert torch.equal(root, default[0])
    assert shapes == default[1]


@pytest.mark.parametrize("transformation", ["embed", "join", "search"])
def test_hidden_size_is_leaf_size_if_not_given_and_reaches_every_hidden_layer(transformation):
    def sizes(**options) -> list[int]:
        part = getattr(HierarchicalAttentiveMemory(INPUT_SIZE, QUERY_SIZE, leaf_size=7, **options), transformation)
        return [parameter.shape[0] for parameter in part.parameters()]

    assert sizes() == sizes(hidden_size=7)
    assert 11 in sizes(hidden_size=11)
    assert 11 not in sizes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "Expected argument `input_size` to be at least 1, but got 0."),
        ({"query_size": -1}, "Expected argument `query_size` to be at least 1, but got -1."),
        ({"leaf_size": 0}, "Expected argument `leaf_size` to be at least 1, but got 0."),
        ({"hidden_size": 0}, "Expected argument `hidden_size` to be at least 1, but got 0."),
        (
            {"real_inputs": 3},
            "Expected argument `real_inputs` to be between 0 and `input_size` (2), and below half of `leaf_size` (32), "
            "but got 3.",
        ),
        (
            {"real_inputs": -1},
            "Expected argument `real_inputs` to be between 0 and `input_size` (2), and below half of `leaf_size` (32), "
            "but got -1.",
        ),
        ({"join": "sum"}, "Expected argument `join` to be one of ('gated', 'choice', 'mlp'), but got 'sum'."),
    ],
)
def test_constructor_errors(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        HierarchicalAttentiveMemory(**({"input_size": 2, "query_size": 3} | options))


# In a network of a user's own, as the README shows.


class Recall(nn.Module):
    """Reads a memory three times; the second and third time it sees what it wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = HierarchicalAttentiveMemory(input_size=4, query_size=16, leaf_size=16)
        self.cell = nn.LSTMCell(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: Tensor, occupied: Tensor, mode: str, generator: torch.Generator) -> Tensor:
        tree, hidden = self.memory.init(inputs, occupied), None
        query = inputs.new_zeros(len(inputs), 16)
        for _ in range(3):
            access = self.memory.attend(tree, query, mode, generator)
            hidden = self.cell(access.read, hidden)
            query = hidden[0]
            tree = self.memory.write(access, query)
        return self.head(query)


@pytest.mark.parametrize("mode", ["straight_through", "soft"])
def test_trains_in_a_foreign_network_and_reaches_all_its_parameters(mode):
    network, generator = Recall(), seeded(11)
    inputs = (torch.rand(64, 4, 4) < 0.5).double()
    occupied = torch.tensor([True, True, True, False]).expand(64, -1)
    target = inputs[:, 1]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for step in range(40):
        logits = network(inputs, occupied, mode, generator)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            dead = [name for name, weight in network.named_parameters() if not weight.grad.any()]
            assert dead == []
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
