"""The gradient of a write's place, along the path only, against one that writes to every leaf of the tree."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lightning_ham.memory import HierarchicalAttentiveMemory, Tree
from lightning_ham.memory.attention import get_estimator
from lightning_ham.memory.attention.descent import went_right
from lightning_ham.memory.attention.straight_through_write import PLACE_SHARE, straight_through_weights
from lightning_ham.memory.tree import begin_in_place, build, path_rows, rejoin_paths


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_memory(join: str = "gated") -> HierarchicalAttentiveMemory:
    torch.manual_seed(0)
    memory = HierarchicalAttentiveMemory(3, 4, leaf_size=5, join=join).double()
    with torch.no_grad():
        for parameter in memory.search.parameters():
            parameter *= 3
    return memory


def weights_everywhere(memory: HierarchicalAttentiveMemory, logits: Tensor, noise: Tensor, ends: Tensor) -> Tensor:
    """1 at the attended leaf and 0 at the others; each branch moves weight to the leaf on its other side."""
    depth, num_leaves = logits.shape[1], 1 << logits.shape[1]
    p = torch.sigmoid(logits + noise)
    weights = one_hot(ends[:, 0], num_leaves).double()
    for level in range(depth):
        sign = 2.0 * went_right(ends[:, 0], depth)[:, level] - 1
        change = one_hot(ends[:, 0], num_leaves) - one_hot(ends[:, 1 + level], num_leaves)
        weights = weights + (sign * (p[:, level] - p[:, level].detach())).unsqueeze(1) * change
    return weights


def read_everywhere(memory: HierarchicalAttentiveMemory, leaves: Tensor, queries: Tensor) -> list[Tensor]:
    """What the accesses read where every leaf is written, by a weight of 1 or 0, and the whole tree is joined again."""
    generator, depth, reads = seeded(1), leaves.shape[1].bit_length() - 1, []
    estimator = get_estimator("straight_through_write")
    for query in queries.unbind(1):
        tree = build(leaves, memory.join)
        noise = estimator.draw_noise(len(leaves), depth, query, generator)
        descent = estimator.descend(tree, query, memory.search, noise)
        ends = torch.cat((descent.leaf_rows.unsqueeze(1), descent.counterfactual_rows), dim=1) - tree.num_leaves
        path = path_rows(descent.leaf_rows, depth)[:, :depth]
        nodes = torch.stack([tree.nodes[b, rows] for b, rows in enumerate(path)])
        # How a write's place is chosen teaches SEARCH, and the nodes that it saw not as much.
        to_read, to_write = (
            weights_everywhere(memory, memory.search(seen, query), descent.noise, ends)
            for seen in (nodes, PLACE_SHARE * nodes + (1 - PLACE_SHARE) * nodes.detach())
        )
        # As in straight_through, a leaf that was not attended gets no gradient from being read.
        fixed = leaves.detach() + (leaves - leaves.detach()) * one_hot(ends[:, 0], tree.num_leaves).unsqueeze(-1)
        reads.append((to_read.unsqueeze(1) @ fixed).squeeze(1))
        leaves = torch.lerp(leaves, memory.write_leaf(leaves, query), to_write.unsqueeze(-1))
    return reads


@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("num_leaves", [1, 2, 4, 16])
def test_it_is_the_gradient_of_writing_everywhere(num_leaves: int, in_place: bool, join: str) -> None:
    memory = make_memory(join)
    leaves = torch.randn(3, num_leaves, 5, dtype=torch.float64, generator=seeded(2)).requires_grad_()
    queries = torch.randn(3, 6, 4, dtype=torch.float64, generator=seeded(3)).requires_grad_()

    tree, generator, reads = build(leaves, memory.join), seeded(1), []
    if in_place:
        tree = begin_in_place(tree)
    for query in queries.unbind(1):
        access = memory.attend(tree, query, "straight_through_write", generator)
        reads.append(access.read)
        tree = memory.write(access, query)

    weights = torch.randn(6, 3, 5, dtype=torch.float64, generator=seeded(4))
    inputs = [leaves, queries, *(p for name, p in memory.named_parameters() if not name.startswith("embed"))]
    expected = read_everywhere(memory, leaves, queries)
    got, want = (
        torch.autograd.grad((torch.stack(values).sin() * weights).sum(), inputs, materialize_grads=True)
        for values in (reads, expected)
    )
    torch.testing.assert_close(torch.stack(reads), torch.stack(expected))
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    if num_leaves > 1:
        assert all(gradient.abs().max() > 0 for gradient in got)


def test_a_push_that_is_not_read_at_once_learns_where_to_go() -> None:
    """Nothing but the read of the second access is scored; the first one's branch hears of it through its write."""
    memory = make_memory()
    queries = torch.randn(2, 8, 4, dtype=torch.float64, generator=seeded(5))
    gradients = {}
    for mode in ("straight_through", "straight_through_write"):
        first = memory.attend(memory.init_blank(8, 2), queries[0], mode, seeded(6))
        second = memory.attend(memory.write(first, queries[0]), queries[1])  # by argmax: SEARCH learns nothing from it
        (gradients[mode],) = torch.autograd.grad(
            second.read.sum(), memory.search.query.weight, allow_unused=True, materialize_grads=True
        )
    assert not gradients["straight_through"].any()
    assert gradients["straight_through_write"].abs().max() > 1e-6


def test_weights_are_one_and_zero_exactly_and_move_along_each_branch() -> None:
    logits = torch.tensor([[0.3, -2.0], [5.0, 0.1]], requires_grad=True)
    noise, right = torch.tensor([[0.5, 1.0], [-9.0, 0.2]]), torch.tensor([[1, 0], [0, 1]])
    weights = straight_through_weights(logits, noise, right)
    assert weights.tolist() == [[1, 0, 0], [1, 0, 0]]
    for column, sign in ((0, 1), (1, -1)):
        (gradient,) = torch.autograd.grad(weights[:, column].sum(), logits, retain_graph=True)
        p = torch.sigmoid(logits.detach() + noise)
        slope = p * (1 - p) * (2 * right - 1)
        expected = slope if column == 0 else slope * torch.tensor([1, 0])
        torch.testing.assert_close(gradient, sign * expected)


@pytest.mark.parametrize("leaves", [[0, 7, 3, 1], [5, 1, 6, 4], [7, 2, 5, 6]])
def test_re_joining_a_path_and_what_branches_off_is_a_full_rebuild(leaves: list[int]) -> None:
    memory = make_memory()
    old, new = torch.randn(2, 1, 8, 5, dtype=torch.float64, generator=seeded(8)).unbind(0)
    at = torch.tensor([leaves])
    tree = rejoin_paths(build(old, memory.join), at + 8, new[:, at[0]], memory.join)
    old = old.clone()
    old[:, at[0]] = new[:, at[0]]
    torch.testing.assert_close(tree.nodes[:, 1:], build(old, memory.join).nodes[:, 1:])


@pytest.mark.parametrize("num_leaves", [1, 2, 16])
def test_a_blank_tree_is_one_of_blank_cells(num_leaves: int) -> None:
    memory = make_memory()
    torch.nn.init.normal_(memory.embed.blank)
    nothing = torch.zeros(3, num_leaves, dtype=torch.bool)
    expected = memory.init(torch.zeros(3, num_leaves, 3, dtype=torch.float64), nothing)
    torch.testing.assert_close(memory.init_blank(3, num_leaves).nodes, expected.nodes)
    with pytest.raises(ValueError, match="power of two, but got 6"):
        memory.init_blank(3, 6)
    assert isinstance(memory.init_blank(1, 2), Tree)
