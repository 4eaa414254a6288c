"""Descents against walks down a heap and against the leaves' probabilities; reads against their formulas."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ham.memory import HierarchicalAttentiveMemory
from lightning_ham.memory.attention import get_estimator
from lightning_ham.memory.attention.descent import Descent, branch_logits, path_entropy, path_log_prob, went_right
from lightning_ham.memory.attention.estimator import Compiled
from lightning_ham.memory.attention.soft import leaf_probabilities
from lightning_ham.memory.attention.straight_through import StraightThrough, straight_through_read
from lightning_ham.memory.transforms import Search
from lightning_ham.memory.tree import Tree

LEAF_SIZE, QUERY_SIZE = 3, 2
SAMPLED = ["reinforce", "straight_through"]


def random_memory(batch, depth, *, seed=0, scale=3.0):
    """A tree of random nodes, a query for each episode, and a SEARCH with opinions."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        search = Search(LEAF_SIZE, QUERY_SIZE, 8).double()
    with torch.no_grad():
        search.out.weight *= scale
    nodes = torch.randn(batch, 2 ** (depth + 1), LEAF_SIZE, dtype=torch.float64, generator=generator)
    query = torch.randn(batch, QUERY_SIZE, dtype=torch.float64, generator=generator)
    return Tree(nodes), query, search


@torch.no_grad()
def plain_logits(tree, query, search):
    """SEARCH at each inner node of each episode, one node at a time: a list of dictionaries by heap row."""
    return [
        {
            row: search(tree.nodes[episode, row].view(1, 1, -1), query[episode : episode + 1]).squeeze()
            for row in range(1, tree.num_leaves)
        }
        for episode in range(len(query))
    ]


def probabilities_below(logits, row, num_leaves):
    """The probabilities of the leaves below `row`, from left to right, given that the descent is there."""
    if row >= num_leaves:
        return [1.0]
    right = 1 / (1 + math.exp(-float(logits[row])))
    left_leaves = probabilities_below(logits, 2 * row, num_leaves)
    right_leaves = probabilities_below(logits, 2 * row + 1, num_leaves)
    return [(1 - right) * p for p in left_leaves] + [right * p for p in right_leaves]


def seeded_descent(tree, query, search, mode, seed=0):
    """A descent whose noise is drawn from a generator with this seed."""
    estimator = get_estimator(mode)
    noise = estimator.draw_noise(len(query), tree.depth, query, torch.Generator().manual_seed(seed))
    return estimator.descend(tree, query, search, noise)


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), depth=st.integers(0, 6), seed=st.integers(0, 2**32))
def test_leaf_probabilities_are_the_products_along_each_path(batch, depth, seed):
    tree, query, search = random_memory(batch, depth, seed=seed)
    probabilities, node_logits = leaf_probabilities(tree, query, search)
    assert probabilities.shape == node_logits.shape == (batch, 2**depth)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(batch, dtype=torch.float64))
    for episode, logits in enumerate(plain_logits(tree, query, search)):
        expected = probabilities_below(logits, 1, tree.num_leaves)
        assert probabilities[episode].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)
        for row, logit in logits.items():
            assert node_logits[episode, row].item() == pytest.approx(logit.item(), rel=1e-12, abs=1e-14)


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 4), depth=st.integers(0, 6), seed=st.integers(0, 2**32))
def test_argmax_goes_right_iff_the_probability_is_above_one_half(batch, depth, seed):
    tree, query, search = random_memory(batch, depth, seed=seed)
    descent = seeded_descent(tree, query, search, "argmax")
    assert descent.counterfactual_rows.shape == (batch, 0)
    assert torch.equal(descent.noise, torch.zeros(batch, depth, dtype=torch.float64))
    for episode, logits in enumerate(plain_logits(tree, query, search)):
        row = 1
        while row < tree.num_leaves:
            row = 2 * row + int(torch.sigmoid(logits[row]) > 0.5)
        assert descent.leaf_rows[episode] == row


def test_argmax_at_exactly_one_half_goes_left():
    tree, query, search = random_memory(5, 3)
    torch.nn.init.zeros_(search.out.weight)
    torch.nn.init.zeros_(search.out.bias)
    assert seeded_descent(tree, query, search, "argmax").leaf_rows.tolist() == [8] * 5


def rounds_of(noise, depth, mode):
    """The noise of a descent by its rounds, each `[batch, nodes]`: a node on the path, and the siblings left so far."""
    widths = [level + 1 if mode == "straight_through" else 1 for level in range(depth)]
    assert noise.shape[1] == sum(widths)
    return noise.split(widths, dim=1) if widths else ()


def descent_and_rounds(tree, query, search, mode) -> tuple[Descent, tuple[torch.Tensor, ...]]:
    """A descent, and the noise `[batch, nodes]` of each of its rounds."""
    estimator = get_estimator(mode)
    noise = estimator.draw_noise(len(query), tree.depth, query, torch.Generator().manual_seed(1))
    return estimator.descend(tree, query, search, noise), rounds_of(noise, tree.depth, mode)


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
@pytest.mark.parametrize("mode", SAMPLED)
def test_sampled_descent_follows_the_signs_of_logit_plus_noise(mode, depth):
    batch = 50
    tree, query, search = random_memory(batch, depth)
    descent, noises = descent_and_rounds(tree, query, search, mode)
    assert descent.noise.shape == (batch, depth)
    for episode, logits in enumerate(plain_logits(tree, query, search)):
        row = 1
        for level in range(depth):
            noise = noises[level][episode, 0]
            assert descent.noise[episode, level] == noise
            row = 2 * row + int(logits[row] + noise > 0)
        assert descent.leaf_rows[episode] == row


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_counterfactual_descents_begin_at_each_sibling_not_taken(depth):
    batch = 50
    tree, query, search = random_memory(batch, depth)
    descent, noises = descent_and_rounds(tree, query, search, "straight_through")
    assert descent.counterfactual_rows.shape == (batch, depth)
    for episode, logits in enumerate(plain_logits(tree, query, search)):
        for level in range(depth):
            row = (int(descent.leaf_rows[episode]) >> (depth - level - 1)) ^ 1
            for below in range(level + 1, depth):
                row = 2 * row + int(logits[row] + noises[below][episode, level + 1] > 0)
            assert descent.counterfactual_rows[episode, level] == row


def test_straight_through_costs_depth_rounds_and_reinforce_one_node_a_round():
    depth = 6
    tree, query, search = random_memory(4, depth)
    widths = {}
    for mode in (*SAMPLED, "argmax"):
        calls = widths[mode] = []

        def count(nodes, state, calls=calls):
            calls.append(nodes.shape[1])
            return search(nodes, state)

        seeded_descent(tree, query, count, mode)
    assert widths["straight_through"] == [1, 2, 3, 4, 5, 6]
    assert widths["reinforce"] == widths["argmax"] == [1] * depth


def assert_frequencies(rows, probabilities):
    """Each of the leaves is among `rows` as often as its probability says, within 4.5 standard errors."""
    counts = torch.bincount(rows, minlength=len(probabilities))
    assert len(counts) == len(probabilities)
    for count, p in zip(counts.tolist(), probabilities, strict=True):
        assert abs(count - len(rows) * p) < 4.5 * math.sqrt(len(rows) * p * (1 - p)) + 1e-9


@pytest.mark.parametrize("mode", SAMPLED)
def test_sampled_descents_follow_the_probabilities_of_the_leaves(mode):
    batch, depth = 20_000, 3
    tree, query, search = random_memory(1, depth)
    (logits,) = plain_logits(tree, query, search)
    expected = probabilities_below(logits, 1, 2**depth)
    assert max(expected) > 4 * min(expected), "nearly uniform probabilities would prove little"
    many = Tree(tree.nodes.expand(batch, -1, -1))
    descent = seeded_descent(many, query.expand(batch, -1), search, mode, seed=2)
    assert_frequencies(descent.leaf_rows - 2**depth, expected)


def test_counterfactual_descents_follow_the_probabilities_below_their_sibling():
    batch, depth = 20_000, 3
    tree, query, search = random_memory(1, depth)
    (logits,) = plain_logits(tree, query, search)
    many = Tree(tree.nodes.expand(batch, -1, -1))
    descent = seeded_descent(many, query.expand(batch, -1), search, "straight_through", seed=3)
    for level in range(depth):
        siblings = (descent.leaf_rows >> (depth - level - 1)) ^ 1
        for sibling in siblings.unique().tolist():
            leaves_below = 2 ** (depth - level - 1)
            reached = descent.counterfactual_rows[siblings == sibling, level] - sibling * leaves_below
            assert_frequencies(reached, probabilities_below(logits, sibling, 2**depth))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("mode", SAMPLED)
def test_noise_has_the_logistic_distribution_and_is_finite(mode, dtype):
    like = torch.zeros((), dtype=dtype)
    noise = get_estimator(mode).draw_noise(50_000, 4, like, torch.Generator().manual_seed(4))
    assert noise.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert noise.isfinite().all()
    for column in noise.unbind(1):
        for quantile in (-8.0, -4.0, -1.0, 0.0, 0.5, 3.0, 8.0):
            p = 1 / (1 + math.exp(-quantile))
            share = (column <= quantile).double().mean().item()
            assert abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / len(column))


@pytest.mark.parametrize("mode", SAMPLED)
def test_no_two_noises_of_a_descent_are_the_same(mode):
    noise = get_estimator(mode).draw_noise(5, 6, torch.zeros((), dtype=torch.float64), torch.Generator().manual_seed(5))
    assert len(noise.unique()) == noise.numel()


@pytest.mark.parametrize(("mode", "count"), [("reinforce", 6), ("straight_through", 21), ("argmax", 0)])
def test_noise_is_as_much_as_the_mode_needs(mode, count):
    assert get_estimator(mode).draw_noise(3, 6, torch.zeros(())).shape == (3, count)
    assert get_estimator(mode).draw_noise(3, 0, torch.zeros(())).shape == (3, 0)


@pytest.mark.parametrize("uniform", [torch.zeros, torch.ones])
def test_noise_of_a_uniform_zero_or_one_is_finite(monkeypatch, uniform):
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: uniform(*shape))
    noise = get_estimator("reinforce").draw_noise(3, 2, torch.zeros(()))
    assert noise.shape == (3, 2)
    assert noise.isfinite().all()


@pytest.mark.parametrize("depth", range(7))
def test_went_right_is_the_binary_number_of_the_leaf(depth):
    leaves = torch.arange(2**depth)
    right = went_right(leaves, depth)
    assert right.shape == (2**depth, depth)
    for leaf, row in enumerate(right.tolist()):
        assert sum(bit << up for up, bit in enumerate(reversed(row))) == leaf
    assert torch.equal(went_right(leaves.view(1, -1, 1), depth), right.view(1, 2**depth, 1, depth))


def test_log_prob_and_entropy_take_any_shape_of_accesses():
    logits = torch.randn(4, 7, 3, dtype=torch.float64)
    leaf = torch.randint(8, (4, 7))
    for values, function in (
        (path_log_prob(logits, leaf), path_log_prob),
        (path_entropy(logits), lambda logits, leaf: path_entropy(logits)),
    ):
        assert values.shape == (4, 7)
        torch.testing.assert_close(values[:, 2], function(logits[:, 2], leaf[:, 2]))


def straight_through_case():
    generator = torch.Generator().manual_seed(5)

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)

    return randn(4, LEAF_SIZE), randn(4, 3, LEAF_SIZE), randn(4, 3), randn(4, 3)


def test_straight_through_read_is_the_leaf_with_the_gradient_of_its_formula():
    leaf, counterfactuals, logits, noise = straight_through_case()
    right = (logits + noise > 0).long()
    read = straight_through_read(leaf, counterfactuals, logits, noise, right)
    assert torch.equal(read, leaf)

    upstream = torch.randn(4, LEAF_SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    to_leaf, to_counterfactuals, to_logits = torch.autograd.grad(
        (read * upstream).sum(), (leaf, counterfactuals, logits), materialize_grads=True
    )
    assert torch.equal(to_leaf, upstream)
    assert not to_counterfactuals.any()
    for episode in range(4):
        for level in range(3):
            z = (logits + noise)[episode, level].item()
            p = 1 / (1 + math.exp(-z))
            taken, other = leaf[episode].tolist(), counterfactuals[episode, level].tolist()
            right, left = (taken, other) if z > 0 else (other, taken)
            along = sum(u * (r - le) for u, r, le in zip(upstream[episode].tolist(), right, left, strict=True))
            expected = along * p * (1 - p)
            assert to_logits[episode, level].item() == pytest.approx(expected, rel=1e-12)


def test_straight_through_read_is_the_leaf_exactly_in_float32_too():
    leaf, counterfactuals, logits, noise = (1e3 * tensor.float() for tensor in straight_through_case())
    right = (logits + noise > 0).long()
    assert torch.equal(straight_through_read(leaf, counterfactuals, logits, noise, right), leaf)


@pytest.mark.parametrize("mode", ["reinforce", "straight_through", "soft", "argmax"])
def test_known_modes_pass(mode):
    get_estimator(mode)


def test_unknown_mode_names_the_known_ones():
    message = (
        "Expected argument `attention` to be one of ('reinforce', 'straight_through', 'straight_through_write', "
        "'soft', 'argmax'), "
        "but got 'hard'."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        get_estimator("hard")


@pytest.mark.parametrize("mode", ["straight_through", "straight_through_write"])
@pytest.mark.parametrize("scale", [0.25, 1.0])
def test_branches_are_sampled_by_the_logits_over_the_scale_of_the_noise(mode, scale):
    """The entropy that is rewarded must be that of the branches as they are sampled."""
    count = 20_000
    with torch.random.fork_rng():
        torch.manual_seed(2)
        memory = HierarchicalAttentiveMemory(3, 4, 5, engine="reference")
        tree, query = memory.init(torch.randn(1, 2, 3)), torch.randn(1, 4)
    memory.noise = scale
    with torch.no_grad():
        memory.search.out.bias += 0.2 - memory.attend(tree, query).logits.item()  # a logit of 0.2
        trees = Tree(tree.nodes.expand(count, -1, -1))
        access = memory.attend(trees, query.expand(count, -1), mode, torch.Generator().manual_seed(0))
    p = 1 / (1 + math.exp(-0.2 / scale))
    assert access.leaf.double().mean().item() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / count))
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    torch.testing.assert_close(access.entropy, torch.full((count,), entropy), rtol=1e-4, atol=1e-5)
    right = access.leaf == 1
    torch.testing.assert_close(access.log_prob.exp(), torch.where(right, p, 1 - p).float(), rtol=1e-4, atol=1e-5)


def test_without_noise_the_logits_are_what_they_are():
    logits = torch.tensor([[0.2, -3.0]])
    assert torch.equal(branch_logits(logits, 0.0), logits)
    assert torch.equal(branch_logits(logits, 0.5), torch.tensor([[0.4, -6.0]]))


def test_an_entropy_that_compiled_loops_would_ignore_is_refused():
    with pytest.raises(
        TypeError, match=r"^Expected Own to leave out `compiled`, as compiled loops ignore its `entropy`"
    ):

        class Own(StraightThrough):
            compiled = Compiled(counterfactual=True)

            def entropy(self, access):
                return access.logits.sum(1)
