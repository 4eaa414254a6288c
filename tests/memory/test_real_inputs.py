"""That reals are handed up the tree to the bit, that JOIN tells close ones apart, and that all engines agree."""

import pytest
import torch

from lightning_ham.controllers import LSTMHAM
from lightning_ham.memory import HierarchicalAttentiveMemory
from lightning_ham.memory.transforms import ChoiceJoin, GatedJoin, compare, make_join

REALS, LEAF, CELLS = 1, 12, 8


def make(join: str = "gated", engine: str = "auto", dtype: torch.dtype = torch.float32) -> HierarchicalAttentiveMemory:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HierarchicalAttentiveMemory(4, 5, LEAF, 16, join, real_inputs=REALS, engine=engine).to(dtype)


def cells(batch: int = 50, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    reals = torch.rand(batch, CELLS, REALS, generator=generator)
    bits = torch.randint(2, (batch, CELLS, 3), generator=generator)
    return torch.cat((reals, bits), dim=2).to(dtype)


def test_a_leaf_holds_its_real_twice_and_a_blank_one_an_empty_range():
    memory = make()
    occupied = torch.ones(1, 2, dtype=torch.bool)
    occupied[0, 1] = False
    leaves = memory.embed(torch.tensor([[[0.75, 1.0, 0.0, 1.0], [0.3, 0.0, 0.0, 0.0]]]), occupied)
    assert leaves[0, 0, :2].tolist() == [0.25, 0.25]
    assert leaves[0, 1, :2].tolist() == [1.0, -1.0]


def test_every_node_holds_the_least_and_the_greatest_real_below_it_to_the_bit():
    tree = make().init(cells())
    leaves = tree.leaves[..., 0]
    for level in range(4):
        nodes = tree.nodes[:, 1 << level : 2 << level]
        below = leaves.view(len(leaves), 1 << level, -1)
        assert torch.equal(nodes[..., 0], below.amin(dim=2))
        assert torch.equal(nodes[..., 1], below.amax(dim=2))


def test_neighbouring_32_bit_numbers_are_told_apart():
    low = torch.linspace(0.5, 0.99, 1000)
    high = torch.nextafter(low, torch.tensor(1.0))
    left = torch.stack((low - 0.5, low - 0.5), dim=1)
    right = torch.stack((high - 0.5, high - 0.5), dim=1)
    assert (compare(left, right, 1) < -0.1).all()
    assert (compare(right, left, 1) > 0.1).all()
    assert not compare(left, left, 1).any()


@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
def test_whatever_the_weights_a_parent_has_the_least_and_the_greatest_of_its_children(join):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make_join(join, LEAF, 16, 4)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
        left, right = torch.randn(2, 500, LEAF)
    parent = module(left, right)
    assert torch.equal(parent[:, :2], torch.minimum(left[:, :2], right[:, :2]))
    assert torch.equal(parent[:, 2:4], torch.maximum(left[:, 2:4], right[:, 2:4]))
    assert not torch.equal(parent[:, 4:], torch.maximum(left, right)[:, 4:])


def test_the_gradient_of_a_range_goes_to_the_child_that_it_is_of():
    left = torch.tensor([[0.1, 0.1, *[0.0] * 10]], requires_grad=True)
    right = torch.tensor([[0.3, 0.3, *[0.0] * 10]], requires_grad=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = GatedJoin(LEAF, 16, 2)
    for index, child in enumerate((left, right)):
        gradients = torch.autograd.grad(module(left, right)[0, index], [left, right])
        for other, gradient in zip((left, right), gradients, strict=True):
            expected = torch.zeros(1, LEAF)
            expected[0, index] = float(other is child)
            assert torch.equal(gradient, expected)


@pytest.mark.parametrize("distance", [1e-6, 1e-3, 0.3])
def test_the_gradient_of_a_comparison_is_bounded(distance):
    left = torch.tensor([[distance]], dtype=torch.float64, requires_grad=True)
    right = torch.zeros(1, 1, dtype=torch.float64)
    (slope,) = torch.autograd.grad(compare(left, right, 1).sum(), left)
    assert float(slope) == pytest.approx(0.5 / (distance**2 + 0.05**2) ** 0.5)


@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
def test_a_compiled_access_is_that_of_plain_torch(join):
    plain, compiled = make(join, "reference", torch.float64), make(join, "fused", torch.float64)
    trees = [memory.init(cells(dtype=torch.float64)) for memory in (plain, compiled)]
    queries = torch.randn(3, 50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for query in queries:
            for index, memory in enumerate((plain, compiled)):
                access = memory.attend(trees[index], query)
                trees[index] = memory.write(access, query, in_place=True)
    torch.testing.assert_close(trees[1].nodes[:, 1:], trees[0].nodes[:, 1:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", ["straight_through", "straight_through_write"])
@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
def test_compiled_episodes_have_the_gradients_of_plain_torch(join, mode):
    found = {}
    for engine in ("reference", "fused"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = LSTMHAM(4, 3, 6, LEAF, 16, join, real_inputs=REALS).double()
        model.memory.engine = engine
        inputs, occupied = cells(dtype=torch.float64), torch.ones(50, CELLS, dtype=torch.bool)
        rollout = model(inputs, occupied, 5, mode, torch.Generator().manual_seed(4))
        (torch.sin(rollout.outputs).sum() + rollout.entropies.sum()).backward()
        found[engine] = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close(found["fused"], found["reference"], rtol=1e-9, atol=1e-9)


def test_without_reals_nothing_is_added():
    assert sum(p.numel() for p in GatedJoin(LEAF, 16).parameters()) == 16 * (2 * LEAF + 1) + 3 * LEAF * 17
    assert sum(p.numel() for p in ChoiceJoin(LEAF, 16).parameters()) == 16 * (2 * LEAF + 1) + (1 + 2 * LEAF) * 17


def test_a_leaf_has_room_for_more_than_its_reals():
    HierarchicalAttentiveMemory(4, 5, 5, real_inputs=2)
    with pytest.raises(ValueError, match="below half of `leaf_size`"):
        HierarchicalAttentiveMemory(4, 5, 4, real_inputs=2)
