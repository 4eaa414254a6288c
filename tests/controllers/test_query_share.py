"""The query gets the same share of SEARCH's gradient in every engine, and only in straight-through modes."""

import pytest
import torch
from torch import Tensor

from lightning_ham.controllers import LSTMHAM, Rollout
from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.engines import unroll
from lightning_ham.memory import HierarchicalAttentiveMemory

ENGINES = ["reference", "sparse", "fused"]
CONTROLLERS = {"lstm_ham": LSTMHAM, "raw_ham": RawHAM}
COUNTERFACTUAL = ["straight_through", "straight_through_write"]
BATCH, NUM_LEAVES, TIMESTEPS = 3, 8, 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(controller: str, engine: str, share: float) -> LSTMHAM | RawHAM:
    """With large random weights, so that branches are neither even nor all alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CONTROLLERS[controller](3, 2, leaf_size=5).double()
        with torch.no_grad():
            model.memory.embed.blank.normal_()
            for parameter in (*model.memory.embed.parameters(), *model.memory.search.parameters()):
                parameter *= 2
    model.memory.engine = engine
    model.memory.query_share = share
    return model


def run(model: LSTMHAM | RawHAM, mode: str, *, guided: bool = False) -> tuple[Rollout, dict[str, Tensor]]:
    """A rollout, and the gradients of a loss that depends on every number of it."""
    inputs = torch.randn(BATCH, NUM_LEAVES, 3, dtype=torch.float64, generator=seeded(1)).requires_grad_()
    occupied = torch.ones(BATCH, NUM_LEAVES, dtype=torch.bool)
    guide = torch.randint(NUM_LEAVES, (BATCH, TIMESTEPS), generator=seeded(2)) if guided else None
    rollout = model(inputs, occupied, TIMESTEPS, mode, seeded(3), guide)
    total = rollout.outputs.new_zeros(())
    for index, values in enumerate((rollout.outputs, rollout.states, rollout.log_probs, rollout.entropies)):
        total = total + (torch.sin(values) * torch.randn(values.shape, generator=seeded(4 + index))).sum()
    of = {"inputs": inputs, **dict(model.named_parameters())}
    found = torch.autograd.grad(total, list(of.values()), materialize_grads=True)
    return rollout, dict(zip(of, found, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("mode", COUNTERFACTUAL)
@pytest.mark.parametrize("engine", ["sparse", "fused"])
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_every_engine_is_the_reference(controller: str, engine: str, mode: str, share: float) -> None:
    expected, expected_gradients = run(make(controller, "reference", share), mode)
    got, gradients = run(make(controller, engine, share), mode)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", COUNTERFACTUAL)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_it_changes_gradients_and_nothing_that_is_put_out(controller: str, engine: str, mode: str) -> None:
    (all_of_it, full), (none, cut) = (run(make(controller, engine, share), mode) for share in (1.0, 0.0))
    for first, second in zip(all_of_it, none, strict=True):
        assert torch.equal(first, second)
    before_the_query = "lstm.weight_hh" if controller == "lstm_ham" else "inputs"
    assert not torch.allclose(full[before_the_query], cut[before_the_query])


def gradients_of_queries(engine: str, mode: str, share: float) -> tuple[Tensor, Tensor]:
    """Of all queries, and of SEARCH's weights of them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        memory = HierarchicalAttentiveMemory(3, 4, 5, engine=engine).double()
        with torch.no_grad():
            memory.embed.blank.normal_()
            memory.write_leaf.leaf.weight *= 3
    memory.query_share = share
    queries = torch.randn(BATCH, TIMESTEPS, 4, dtype=torch.float64, generator=seeded(1)).requires_grad_()
    blank = memory.init_blank(BATCH, NUM_LEAVES)
    accesses = unroll(memory, queries, blank, TIMESTEPS, mode, seeded(2))
    loss = torch.sin(accesses.reads).sum() + torch.sin(accesses.logits).sum()
    of_queries, of_weights = torch.autograd.grad(loss, [queries, memory.search.query.weight])
    return of_queries, of_weights


@pytest.mark.parametrize("mode", COUNTERFACTUAL)
@pytest.mark.parametrize("engine", ENGINES)
def test_with_none_nothing_reaches_the_query_and_search_learns_all_the_same(engine: str, mode: str) -> None:
    everything, weights = gradients_of_queries(engine, mode, 1.0)
    assert (everything.abs().amax(dim=2) > 1e-6).all()
    for share in (0.3, 0.0):
        queries, same_weights = gradients_of_queries(engine, mode, share)
        torch.testing.assert_close(queries, share * everything, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(same_weights, weights, rtol=1e-10, atol=1e-12)
    assert not queries.any()


@pytest.mark.parametrize(
    ("mode", "guided"), [("reinforce", False), ("argmax", False), ("soft", False), ("straight_through", True)]
)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_it_does_not_matter_where_no_gradient_goes_through_a_sampled_branch(
    controller: str, engine: str, mode: str, guided: bool
) -> None:
    if (engine, mode) == ("fused", "soft"):
        pytest.skip("no such attention")
    (_, full), (_, cut) = (run(make(controller, engine, share), mode, guided=guided) for share in (1.0, 0.0))
    assert all(torch.equal(full[name], cut[name]) for name in full)
