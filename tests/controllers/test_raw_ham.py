"""The raw HAM: what it does with operations, and that every engine does the same."""

import re
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_ham.controllers import Rollout, complete_options
from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.engines import episodes, threads
from lightning_ham.models import TaskModel
from lightning_ham.tasks import get_task

MODES = ["straight_through", "straight_through_write", "reinforce", "soft", "argmax"]
DIFFERENTIABLE = [name for name in Rollout._fields if name != "leaves"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(engine: str = "auto", dtype: torch.dtype = torch.float64, **options) -> RawHAM:
    """With large random weights, so that branches are neither even nor all alike."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RawHAM(3, 2, **{"leaf_size": 5, **options}).double()
        with torch.no_grad():
            model.memory.embed.blank.normal_()
            for parameter in (*model.memory.embed.parameters(), *model.memory.search.parameters()):
                parameter *= 2
    model.memory.engine = engine
    return model.to(dtype)


def run(
    model: RawHAM, mode: str, batch: int, num_leaves: int, timesteps: int, guide: Tensor | None = None
) -> tuple[Rollout, list[Tensor]]:
    """A rollout and the gradient of a loss that depends on every number of it."""
    dtype = model.memory.embed.blank.dtype
    inputs = torch.randn(batch, num_leaves, 3, dtype=torch.float64, generator=seeded(1)).to(dtype).requires_grad_()
    occupied = torch.rand(batch, num_leaves, generator=seeded(2)) < 0.8
    rollout = model(inputs, occupied, timesteps, mode, seeded(3), guide)
    total = rollout.outputs.new_zeros(())
    for index, name in enumerate(DIFFERENTIABLE):
        values = getattr(rollout, name)
        weights = torch.randn(values.shape, dtype=torch.float64, generator=seeded(4 + index)).to(dtype)
        total = total + (torch.sin(values) * weights).sum()
    return rollout, list(torch.autograd.grad(total, [inputs, *model.parameters()], materialize_grads=True))


@pytest.mark.parametrize("engine", ["sparse", "fused"])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_engine_is_the_reference(engine: str, data: st.DataObject) -> None:
    options = {
        "leaf_size": data.draw(st.integers(1, 6)),
        "hidden_size": data.draw(st.sampled_from([None, 1, 7])),
        "join": data.draw(st.sampled_from(["gated", "choice", "mlp"])),
    }
    mode = data.draw(st.sampled_from([mode for mode in MODES if (engine, mode) != ("fused", "soft")]))
    num_leaves = 2 ** data.draw(st.integers(0, 4))
    sizes = data.draw(st.integers(1, 5)), num_leaves, data.draw(st.integers(1, min(num_leaves, 6)))
    expected, expected_gradients = run(make("reference", **options), mode, *sizes)
    got, gradients = run(make(engine, **options), mode, *sizes)
    assert torch.equal(got.leaves, expected.leaves)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", ["sparse", "fused"])
def test_every_engine_follows_a_guide_as_the_reference_does(engine: str) -> None:
    guide = torch.randint(8, (3, 5), generator=seeded(0))
    (expected, expected_gradients), (got, gradients) = (
        run(make(name), "straight_through_write", 3, 8, 5, guide=guide) for name in ("reference", engine)
    )
    assert torch.equal(got.leaves, guide)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", ["straight_through_write", "straight_through", "argmax"])
def test_every_engine_is_the_reference_in_float32_and_over_many_blocks_and_threads(mode: str, monkeypatch) -> None:
    sizes = 2 * threads.LANES + 3, 8, 7
    monkeypatch.setattr(threads, "_threads", None)
    before = torch.get_num_threads()
    results = []
    try:
        for engine, count in (("reference", 1), ("sparse", 1), ("fused", 1), ("fused", 3)):
            threads.set_num_threads(count, compiled=True)
            results.append(run(make(engine, torch.float32), mode, *sizes))
    finally:
        torch.set_num_threads(before)
    (expected, expected_gradients), *others = results
    for rollout, gradients in others:
        torch.testing.assert_close(rollout.outputs, expected.outputs, rtol=1e-4, atol=1e-5)
        for gradient, like in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, like, rtol=1e-4, atol=1e-5 * float(like.abs().max() + 1))
    (_, (one_thread, gradients_of_one), (three_threads, gradients_of_three)) = others
    assert all(map(torch.equal, one_thread, three_threads))
    assert all(map(torch.equal, gradients_of_one, gradients_of_three))


@pytest.mark.parametrize("mode", MODES)
def test_without_gradients_it_does_the_same(mode: str) -> None:
    for engine in ("reference", "sparse", "auto"):
        model = make(engine)
        inputs, occupied = torch.randn(2, 8, 3, dtype=torch.float64, generator=seeded(1)), torch.ones(2, 8).bool()
        expected = model(inputs, occupied, 6, mode, seeded(3))
        with torch.no_grad():
            torch.testing.assert_close(model(inputs, occupied, 6, mode, seeded(3)), expected)


def test_engines_are_chosen_as_asked_for() -> None:
    inputs, occupied = torch.zeros(300, 2, 3, dtype=torch.float64), torch.ones(300, 2, dtype=torch.bool)
    with mock.patch.object(episodes, "run_episodes", side_effect=episodes.run_episodes) as compiled:
        for engine, mode, calls in (("sparse", "argmax", 0), ("auto", "soft", 0), ("auto", "argmax", 1)):
            make(engine)(inputs, occupied, 1, mode)
            assert compiled.call_count == calls
        make("auto")(inputs[:2], occupied[:2], 1)
        assert compiled.call_count == 1, "compiling is not worth it for so little"
    with pytest.raises(ValueError, match="The engine 'fused' cannot run this: attention 'soft' visits every leaf"):
        make("fused")(inputs, occupied, 1, "soft")


def test_an_operation_sees_what_earlier_ones_wrote_and_nothing_later() -> None:
    model = make()
    inputs, occupied = torch.randn(1, 8, 3, dtype=torch.float64, generator=seeded(1)), torch.ones(1, 8).bool()
    before = model(inputs, occupied, 8).outputs
    changed = inputs.clone()
    changed[:, 4] += 10
    after = model(changed, occupied, 8).outputs
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 5:], after[:, 5:])
    assert torch.equal(model(inputs, occupied, 5).outputs, before[:, :5])


def test_more_timesteps_than_operations_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("Expected at most as many timesteps as cells (4), but got 5")):
        make()(torch.zeros(1, 4, 3, dtype=torch.float64), torch.ones(1, 4, dtype=torch.bool), 5)
    with pytest.raises(ValueError, match="`output_size` to be at least 2, but got 1"):
        RawHAM(3, 1)


def test_all_parameters_learn() -> None:
    task = get_task("priority_queue")
    episodes = task.sample(8, (6, 8), generator=seeded(0))
    torch.manual_seed(0)
    model = RawHAM(task.input_size, task.output_size)
    rollout = model(episodes.inputs, episodes.occupied, 8, "straight_through_write", seeded(1))
    rollout.outputs.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_options_have_defaults_that_a_recipe_can_change() -> None:
    assert complete_options("raw_ham", {"leaf_size": 8}) == {
        "leaf_size": 8,
        "hidden_size": None,
        "join": "gated",
        "state_bits": 1,
        "grid": None,
    }


@pytest.mark.parametrize("mode", ["straight_through", "straight_through_write"])
def test_every_engine_has_the_entropy_of_branches_as_they_are_sampled(mode: str) -> None:
    rollouts = []
    for engine in ("reference", "sparse", "fused"):
        model = make(engine)
        model.memory.noise = 0.3
        rollouts.append(run(model, mode, batch=3, num_leaves=8, timesteps=5)[0])
    for rollout in rollouts[1:]:
        torch.testing.assert_close(rollout.entropies, rollouts[0].entropies)
        torch.testing.assert_close(rollout.branch_probs, rollouts[0].branch_probs)
    p = rollouts[0].branch_probs
    torch.testing.assert_close(rollouts[0].entropies, (torch.special.entr(p) + torch.special.entr(1 - p)).sum(-1))


@pytest.mark.parametrize("state_bits", [1, 2, 3])
def test_the_last_outputs_are_the_state_of_the_leaf_before_and_after_the_write(state_bits: int) -> None:
    values = 4
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = RawHAM(3, values + 2 * state_bits, leaf_size=5, state_bits=state_bits).double()
    inputs, occupied = torch.randn(2, 4, 3, dtype=torch.float64, generator=seeded(0)), torch.ones(2, 4, dtype=bool)
    with torch.no_grad():
        outputs = model(inputs, occupied, 1).outputs[:, 0]
        queries = model.memory.embed(inputs[:, :1], occupied[:, :1])[:, 0]
        blank = model.memory.embed.blank.expand(2, -1)
        before, after = model.head(blank), model.head(model.memory.write_leaf(blank, queries))
    torch.testing.assert_close(outputs[:, :values], before[:, :values])
    torch.testing.assert_close(outputs[:, values::2], before[:, values:])
    torch.testing.assert_close(outputs[:, values + 1 :: 2], after[:, values:])


@pytest.mark.parametrize(("task", "expected"), [("stack", 1), ("priority_queue", 1), ("queue", 2)])
def test_a_task_brings_the_number_of_its_state_bits(task: str, expected: int) -> None:
    model = TaskModel(task, "raw_ham", {"leaf_size": 4})
    assert model.controller_options["state_bits"] == expected
    assert TaskModel(task, "lstm_ham", {"controller_size": 4}).controller_options.get("state_bits") is None


@pytest.mark.parametrize(
    ("options", "message"), [((2, {"state_bits": 2}), "output_size"), ((9, {"state_bits": 0}), "state_bits")]
)
def test_state_bits_that_do_not_fit_are_refused(options, message: str) -> None:
    output_size, rest = options
    with pytest.raises(ValueError, match=message):
        RawHAM(3, output_size, **rest)
