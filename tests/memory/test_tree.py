"""The tree against a plain heap of vectors, one episode at a time."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_ham.memory.tree import (
    Tree,
    begin_in_place,
    build,
    gather_rows,
    path_rows,
    rejoin_path,
    replace_rows,
)

NUM_EXAMPLES = 60


def join(left, right):
    """A JOIN that is neither symmetric nor associative, so that every misplaced child shows."""
    return 0.75 * left - 0.5 * right + 0.25 * torch.sin(left * right)


def plain_heap(leaves):
    """One episode's nodes by heap row, built from the leaves `[num_leaves, leaf_size]` one JOIN at a time."""
    heap = {len(leaves) + index: leaf for index, leaf in enumerate(leaves)}
    for row in range(len(leaves) - 1, 0, -1):
        heap[row] = join(heap[2 * row], heap[2 * row + 1])
    return heap


def assert_is_heap(nodes, heap):
    """One episode's nodes `[2 * num_leaves, leaf_size]` are exactly the nodes of the heap."""
    assert len(nodes) == len(heap) + 1
    for row, value in heap.items():
        torch.testing.assert_close(nodes[row], value, rtol=1e-12, atol=1e-12)


def ancestors(row):
    return {row >> up for up in range(1, row.bit_length())}


@st.composite
def leaves_and_places(draw):
    """Leaves `[batch, num_leaves, leaf_size]`, and the index of a leaf for every episode."""
    batch, depth, size = draw(st.integers(1, 4)), draw(st.integers(0, 6)), draw(st.integers(1, 4))
    places = draw(st.lists(st.integers(0, 2**depth - 1), min_size=batch, max_size=batch))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    leaves = torch.randn(batch, 2**depth, size, dtype=torch.float64, generator=generator)
    return leaves, torch.tensor(places)


def write(tree, places, values, *, in_place):
    """Put `values` at the leaves `places` and re-join their ancestors, as an access does."""
    rows = path_rows(places + tree.num_leaves, tree.depth)
    siblings = gather_rows(tree, rows[:, 1:] ^ 1)
    return replace_rows(tree, rows, rejoin_path(rows, values, siblings, join), in_place=in_place)


@settings(max_examples=NUM_EXAMPLES, deadline=None)
@given(leaves_and_places())
def test_build_joins_every_node_from_its_children(case):
    leaves, _ = case
    tree = build(leaves, join)
    batch, num_leaves, size = leaves.shape
    assert tree.nodes.shape == (batch, 2 * num_leaves, size)
    assert tree.num_leaves == num_leaves
    assert 2**tree.depth == num_leaves
    assert torch.equal(tree.leaves, leaves)
    for nodes, root, episode in zip(tree.nodes, tree.root, leaves, strict=True):
        heap = plain_heap(episode)
        assert_is_heap(nodes, heap)
        torch.testing.assert_close(root, heap[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_leaves", [0, 3, 5, 6, 7, 12, 24, 63])
def test_number_of_leaves_must_be_a_power_of_two(num_leaves):
    with pytest.raises(
        ValueError, match=rf"^Expected the number of leaves to be a power of two, but got {num_leaves}\.$"
    ):
        build(torch.zeros(2, num_leaves, 3), join)


def test_gather_takes_the_rows_of_each_episode():
    nodes = torch.randn(3, 8, 2, dtype=torch.float64)
    rows = torch.tensor([[1, 7, 7, 2], [3, 1, 4, 6], [5, 5, 2, 1]])
    tree = Tree(nodes)
    gathered = gather_rows(tree, rows)
    assert gathered.shape == (3, 4, 2)
    for episode in range(3):
        for column in range(4):
            assert torch.equal(gathered[episode, column], nodes[episode, int(rows[episode, column])])


def test_gather_no_rows():
    assert gather_rows(Tree(torch.randn(3, 8, 2)), torch.empty(3, 0, dtype=torch.long)).shape == (3, 0, 2)


def test_replace_changes_the_given_rows_of_each_episode():
    nodes, values = torch.randn(2, 8, 3), torch.randn(2, 2, 3)
    rows = torch.tensor([[1, 6], [7, 3]])
    replaced = replace_rows(Tree(nodes), rows, values).nodes
    for episode in range(2):
        new = dict(zip(rows[episode].tolist(), values[episode], strict=True))
        for row in range(8):
            assert torch.equal(replaced[episode, row], new.get(row, nodes[episode, row]))


@pytest.mark.parametrize("depth", range(7))
def test_path_leads_from_the_root_to_the_leaf(depth):
    leaf_rows = torch.arange(2**depth, 2 ** (depth + 1))
    paths = path_rows(leaf_rows, depth)
    assert paths.shape == (2**depth, depth + 1)
    for leaf_row, path in zip(leaf_rows.tolist(), paths.tolist(), strict=True):
        assert path == [*sorted(ancestors(leaf_row)), leaf_row]


@settings(max_examples=NUM_EXAMPLES, deadline=None)
@given(leaves_and_places())
def test_rejoining_a_path_equals_a_full_rebuild(case):
    leaves, places = case
    values = torch.cos(3 * leaves.sum(1))  # [batch, leaf_size]
    written = write(build(leaves, join), places, values, in_place=False)
    rebuilt = leaves.clone()
    for episode, place in enumerate(places.tolist()):
        rebuilt[episode, place] = values[episode]
    for nodes, episode_leaves in zip(written.nodes, rebuilt, strict=True):
        assert_is_heap(nodes, plain_heap(episode_leaves))


@settings(max_examples=NUM_EXAMPLES, deadline=None)
@given(leaves_and_places())
def test_a_write_changes_its_leaf_and_that_leafs_ancestors_only(case):
    leaves, places = case
    tree = build(leaves, join)
    written = write(tree, places, leaves.mean(1) + 10.0, in_place=False)
    differs = (written.nodes != tree.nodes).any(-1)
    for episode, place in enumerate(places.tolist()):
        leaf_row = tree.num_leaves + place
        changed = {row for row in range(2 * tree.num_leaves) if differs[episode, row]}
        assert changed == {leaf_row} | ancestors(leaf_row)


@settings(max_examples=NUM_EXAMPLES, deadline=None)
@given(leaves_and_places())
def test_in_place_equals_functional_and_only_it_changes_its_tree(case):
    leaves, places = case
    tree = build(leaves, join)
    before = tree.nodes.clone()
    values = leaves.mean(1) + 10.0

    functional = write(tree, places, values, in_place=False)
    assert torch.equal(tree.nodes, before)

    overwritten = write(tree, places, values, in_place=True)
    assert torch.equal(overwritten.nodes, functional.nodes)
    assert overwritten.nodes.data_ptr() == tree.nodes.data_ptr()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_gradient_of_a_write_is_that_of_a_full_rebuild(depth):
    leaves = torch.randn(2, 2**depth, 2, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    places = torch.tensor([0, 2**depth - 1])
    weights = torch.randn(2, 2 ** (depth + 1) - 1, 2, dtype=torch.float64)

    written = write(build(leaves, join), places, values, in_place=False)
    got = torch.autograd.grad((written.nodes[:, 1:] * weights).sum(), (leaves, values))

    total = torch.zeros((), dtype=torch.float64)
    for episode, place in enumerate(places.tolist()):
        rows = [values[episode] if index == place else leaves[episode, index] for index in range(2**depth)]
        heap = plain_heap(rows)
        total = total + sum((heap[row] * weights[episode, row - 1]).sum() for row in heap)
    expected = torch.autograd.grad(total, (leaves, values), materialize_grads=True)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


# Trees that are changed in place, with gradients.


class Step(NamedTuple):
    """Rows gathered, what of them is used, and rows replaced, each for every episode."""

    gathered: Tensor
    """`[batch, count]`; a row may stand there twice."""
    used: bool
    """Whether the gathered nodes count in the result."""
    replaced: Tensor
    """`[batch, count]`, all different."""
    replaced_by_gathered: bool
    """Whether the new nodes depend on those gathered before, or on the given values alone."""


@st.composite
def chains(draw, max_steps=4):
    """The nodes of a tree, some steps, and values for them."""
    batch, depth, size = draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(st.integers(1, 2))
    rows = st.integers(1, 2 ** (depth + 1) - 1)
    steps = []
    for _ in range(draw(st.integers(1, max_steps))):
        gathered, replaced = draw(st.integers(0, 3)), draw(st.integers(1, 2 ** (depth + 1) - 1))
        lists = st.lists(rows, min_size=gathered, max_size=gathered)
        different = st.lists(rows, min_size=replaced, max_size=replaced, unique=True)
        steps.append(
            Step(
                torch.tensor([draw(lists) for _ in range(batch)], dtype=torch.long).view(batch, gathered),
                draw(st.booleans()),
                torch.tensor([draw(different) for _ in range(batch)]),
                draw(st.booleans()),
            )
        )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def randn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    return randn(batch, 2 ** (depth + 1), size), steps, [randn(batch, step.replaced.shape[1], size) for step in steps]


def run_chain(tree, steps, values, *, read_last=True):
    """What a chain of gathers and replacements comes to, a number for each episode."""
    total = tree.nodes.new_zeros(len(tree.nodes))
    for step, value in zip(steps, values, strict=True):
        nodes = gather_rows(tree, step.gathered)
        if step.used:
            total = total + torch.sin(2 * nodes).sum((1, 2))
        new = value * torch.cos(nodes.sum(1, keepdim=True)) if step.replaced_by_gathered else value
        tree = replace_rows(tree, step.replaced, new)
    if read_last:
        everything = torch.arange(1, tree.nodes.shape[1]).expand(len(tree.nodes), -1)
        nodes = gather_rows(tree, everything)
        total = total + (nodes**2 * torch.arange(1, tree.nodes.shape[1]).unsqueeze(1)).sum((1, 2))
    return total


def gradients_of_chain(tree, nodes, steps, values, *, read_last, retain=1):
    total = run_chain(tree, steps, values, read_last=read_last)
    weights = torch.linspace(1, 2, len(total), dtype=total.dtype)
    if not total.requires_grad:
        return total, [[torch.zeros_like(leaf) for leaf in (nodes, *values)]] * retain
    return total, [
        torch.autograd.grad((total * weights).sum(), (nodes, *values), retain_graph=True, materialize_grads=True)
        for _ in range(retain)
    ]


@settings(max_examples=NUM_EXAMPLES, deadline=None)
@given(chains(), st.booleans())
def test_a_chain_in_place_equals_one_of_copies_with_its_gradient(chain, read_last):
    nodes, steps, values = chain
    before = nodes.detach().clone()
    expected, (gradients,) = gradients_of_chain(Tree(nodes), nodes, steps, values, read_last=read_last)
    tree = begin_in_place(Tree(nodes))
    got, both = gradients_of_chain(tree, nodes, steps, values, read_last=read_last, retain=2)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    for backward in both:  # the second one over the same graph, whose buffers the first must not have spoilt
        for first, second in zip(backward, gradients, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    assert torch.equal(nodes, before)
    assert all(torch.equal(first, second) for first, second in zip(*both, strict=True))


@settings(max_examples=15, deadline=None)
@given(chains(max_steps=3))
def test_the_gradient_of_a_chain_in_place_is_that_of_its_numbers(chain):
    nodes, steps, values = chain

    def total(nodes, *values):
        return run_chain(begin_in_place(Tree(nodes)), steps, values)

    assert torch.autograd.gradcheck(total, (nodes, *values))


def test_a_tree_in_place_has_the_nodes_of_the_given_one_and_leaves_that_alone():
    nodes = torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    before = nodes.detach().clone()
    tree = begin_in_place(Tree(nodes))
    assert (tree.num_leaves, tree.depth) == (4, 2)
    assert torch.equal(tree.nodes, before)
    rows = torch.tensor([[1, 2], [7, 3]])
    changed = replace_rows(tree, rows, torch.ones(2, 2, 3, dtype=torch.float64))
    assert changed.nodes.data_ptr() == tree.nodes.data_ptr() != nodes.data_ptr()
    assert torch.equal(changed.nodes, replace_rows(Tree(before), rows, torch.ones(2, 2, 3).double()).nodes)
    assert torch.equal(nodes, before)


def test_a_tree_in_place_of_nodes_without_a_gradient_gives_one_to_what_is_written():
    values = torch.randn(1, 1, 2, requires_grad=True)
    tree = begin_in_place(Tree(torch.zeros(1, 4, 2)))
    nodes = gather_rows(tree, torch.tensor([[1, 2]]))
    assert not nodes.requires_grad
    nodes = gather_rows(replace_rows(tree, torch.tensor([[2]]), values), torch.tensor([[1, 2]]))
    (gradient,) = torch.autograd.grad(nodes.sum(), values)
    assert torch.equal(gradient, torch.ones(1, 1, 2))


def test_the_token_of_a_tree_in_place_has_the_memory_of_one_number():
    tree = begin_in_place(Tree(torch.randn(2, 64, 8, requires_grad=True)))
    for _ in range(2):
        assert tree.gradient is not None
        assert tree.gradient.token.shape == tree.nodes.shape
        assert tree.gradient.token.untyped_storage().nbytes() == 4
        gather_rows(tree, torch.ones(2, 1, dtype=torch.long))
        tree = replace_rows(tree, torch.ones(2, 1, dtype=torch.long), torch.zeros(2, 1, 8))


def test_an_empty_batch_is_a_batch():
    rows = torch.empty(0, 2, dtype=torch.long)
    for tree in (Tree(torch.zeros(0, 8, 3)), begin_in_place(Tree(torch.zeros(0, 8, 3)))):
        nodes = gather_rows(tree, rows)
        assert nodes.shape == (0, 2, 3)
        assert replace_rows(tree, rows, nodes).nodes.shape == (0, 8, 3)
