"""The learned transformations against their formulas, computed one number at a time in plain Python."""

import math

import pytest
import torch

from lightning_ham.memory.transforms import ChoiceJoin, Embed, GatedJoin, MLPJoin, Search, Write, make_join

INPUT_SIZE, QUERY_SIZE, LEAF_SIZE, HIDDEN_SIZE = 4, 3, 5, 7


@pytest.fixture(autouse=True)
def in_float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def close(got, expected):
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-12, atol=1e-12)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def affine(linear, vector):
    """A Linear layer on a list of numbers."""
    bias = linear.bias.tolist() if linear.bias is not None else [0.0] * linear.out_features
    return [
        sum(weight * number for weight, number in zip(row, vector, strict=True)) + offset
        for row, offset in zip(linear.weight.tolist(), bias, strict=True)
    ]


def two_layers(mlp, vector):
    """Linear, ReLU, Linear."""
    return affine(mlp[2], [max(0.0, number) for number in affine(mlp[0], vector)])


def test_embed():
    embed = Embed(INPUT_SIZE, LEAF_SIZE, HIDDEN_SIZE)
    torch.nn.init.normal_(embed.blank)
    inputs = torch.randn(2, 3, INPUT_SIZE)
    occupied = torch.tensor([[True, False, True], [False, True, True]])
    leaves = embed(inputs, occupied)
    for episode in range(2):
        for cell in range(3):
            if occupied[episode, cell]:
                close(leaves[episode, cell], two_layers(embed.mlp, inputs[episode, cell].tolist()))
            else:
                close(leaves[episode, cell], embed.blank.tolist())


def test_inputs_of_blank_cells_are_not_seen():
    embed = Embed(INPUT_SIZE, LEAF_SIZE, HIDDEN_SIZE)
    occupied = torch.tensor([[True, False, True, False]])
    blank = ~occupied.unsqueeze(-1)
    inputs = torch.randn(1, 4, INPUT_SIZE)
    results = []
    for content in (0.0, -1e6, math.inf, math.nan):
        candidate = inputs.masked_fill(blank, content).requires_grad_()
        leaves = embed(candidate, occupied)
        assert torch.equal(leaves[0, 1], leaves[0, 3])
        gradients = torch.autograd.grad((leaves**2).sum(), (candidate, *embed.parameters()))
        assert not gradients[0][0, [1, 3]].any()
        assert gradients[0][0, [0, 2]].all(-1).all()
        results.append((leaves, gradients[1:]))
    for leaves, gradients in results[1:]:
        assert torch.equal(leaves, results[0][0])
        for gradient, first in zip(gradients, results[0][1], strict=True):
            assert torch.equal(gradient, first)


def test_mlp_join():
    join = MLPJoin(LEAF_SIZE, HIDDEN_SIZE)
    left, right = torch.randn(2, 3, 4, LEAF_SIZE)
    parents = join(left, right)
    assert parents.shape == left.shape
    for episode in range(3):
        for node in range(4):
            children = left[episode, node].tolist() + right[episode, node].tolist()
            close(parents[episode, node], [math.tanh(number) for number in two_layers(join.mlp, children)])


def chosen(left, right, sides, out):
    """The parent, from the logits of the sides, and from those of the new values and these themselves."""
    parent = []
    for dimension, (a, b, logit) in enumerate(zip(left, right, sides, strict=True)):
        side, new, candidate = sigmoid(logit), sigmoid(out[dimension]), math.tanh(out[LEAF_SIZE + dimension])
        choice = (1 - side) * a + side * b
        parent.append((1 - new) * choice + new * candidate)
    return parent


def test_gated_join():
    join = GatedJoin(LEAF_SIZE, HIDDEN_SIZE)
    left, right = torch.randn(2, 3, 4, LEAF_SIZE)
    parents = join(left, right)
    assert parents.shape == left.shape
    for episode in range(3):
        for node in range(4):
            a, b = left[episode, node].tolist(), right[episode, node].tolist()
            hidden = [max(0.0, number) for number in affine(join.hidden, a + b)]
            out = affine(join.out, hidden)
            close(parents[episode, node], chosen(a, b, out[:LEAF_SIZE], out[LEAF_SIZE:]))


def test_choice_join():
    join = ChoiceJoin(LEAF_SIZE, HIDDEN_SIZE)
    left, right = torch.randn(2, 3, 4, LEAF_SIZE)
    parents = join(left, right)
    assert parents.shape == left.shape
    for episode in range(3):
        for node in range(4):
            a, b = left[episode, node].tolist(), right[episode, node].tolist()
            hidden = [max(0.0, number) for number in affine(join.hidden, a + b)]
            shared, *out = affine(join.out, hidden)
            close(parents[episode, node], chosen(a, b, [math.sqrt(LEAF_SIZE) * shared] * LEAF_SIZE, out))


def test_the_weights_of_a_choice_join_make_a_gated_one_that_does_the_same():
    choice, gated = ChoiceJoin(LEAF_SIZE, HIDDEN_SIZE), GatedJoin(LEAF_SIZE, HIDDEN_SIZE)
    with torch.no_grad():
        for own, taken in zip(gated.layer_weights, choice.layer_weights, strict=True):
            own.copy_(taken)
    left, right = torch.randn(2, 3, 4, LEAF_SIZE)
    torch.testing.assert_close(choice(left, right), gated(left, right))


@pytest.mark.parametrize(("kind", "bias"), [(GatedJoin, -1.0), (ChoiceJoin, -3.0)])
def test_join_at_first_mostly_copies_from_its_children_and_prefers_neither(kind, bias):
    size = 32
    weight_of_left, weight_of_right = [], []
    for _ in range(20):
        join = kind(size, size)
        left, right = torch.randn(2, 64, size).requires_grad_().unbind(0)
        # With the hidden layer cut off, the gates are constants and the parent is linear in its children.
        torch.nn.init.zeros_(join.hidden.weight)
        for weights, child in ((weight_of_left, left), (weight_of_right, right)):
            (gradient,) = torch.autograd.grad(join(left, right).sum(), child)
            weights.append(gradient.mean().item())
    left, right = sum(weight_of_left) / 20, sum(weight_of_right) / 20
    assert left + right == pytest.approx(1 - sigmoid(bias), abs=0.02)
    assert left == pytest.approx(right, abs=0.02)


@pytest.mark.parametrize(("kind", "expected"), [("gated", GatedJoin), ("choice", ChoiceJoin), ("mlp", MLPJoin)])
def test_join_by_name(kind, expected):
    join = make_join(kind, LEAF_SIZE, HIDDEN_SIZE)
    assert type(join) is expected
    children = torch.zeros(1, LEAF_SIZE)
    assert join(children, children).shape == (1, LEAF_SIZE)
    assert HIDDEN_SIZE in {parameter.shape[0] for parameter in join.parameters()}


def test_unknown_join():
    with pytest.raises(
        ValueError,
        match=r"^Expected argument `join` to be one of \('gated', 'choice', 'mlp'\), but got 'gate'\.$",
    ):
        make_join("gate", LEAF_SIZE, HIDDEN_SIZE)


def test_search():
    search = Search(LEAF_SIZE, QUERY_SIZE, HIDDEN_SIZE)
    nodes, query = torch.randn(2, 3, LEAF_SIZE), torch.randn(2, QUERY_SIZE)
    logits = search(nodes, query)
    assert logits.shape == (2, 3)
    for episode in range(2):
        from_query = affine(search.query, query[episode].tolist())
        for node in range(3):
            from_node = affine(search.node, nodes[episode, node].tolist())
            hidden = [max(0.0, a + b) for a, b in zip(from_node, from_query, strict=True)]
            close(logits[episode, node], affine(search.out, hidden)[0])


def plain_write(write, leaf, query):
    """T * H + (1 - T) * leaf."""
    from_leaf, from_query = affine(write.leaf, leaf), affine(write.query, query)
    total = [a + b for a, b in zip(from_leaf, from_query, strict=True)]
    gates, values = map(sigmoid, total[: len(leaf)]), map(math.tanh, total[len(leaf) :])
    return [t * h + (1 - t) * old for t, h, old in zip(gates, values, leaf, strict=True)]


def test_write_one_leaf_of_each_episode():
    write = Write(LEAF_SIZE, QUERY_SIZE)
    leaves, query = torch.randn(3, LEAF_SIZE), torch.randn(3, QUERY_SIZE)
    written = write(leaves, query)
    assert written.shape == leaves.shape
    for episode in range(3):
        close(written[episode], plain_write(write, leaves[episode].tolist(), query[episode].tolist()))


# As many leaves as episodes, too: there a query added along the wrong dimension has a fitting shape.
@pytest.mark.parametrize("num_leaves", [1, 2, 3])
def test_write_several_leaves_of_each_episode(num_leaves):
    write = Write(LEAF_SIZE, QUERY_SIZE)
    leaves, query = torch.randn(3, num_leaves, LEAF_SIZE), torch.randn(3, QUERY_SIZE)
    written = write(leaves, query)
    assert written.shape == leaves.shape
    for episode in range(3):
        for leaf in range(num_leaves):
            expected = plain_write(write, leaves[episode, leaf].tolist(), query[episode].tolist())
            close(written[episode, leaf], expected)
