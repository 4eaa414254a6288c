"""Every engine against the reference: the same numbers, the same gradients, less work."""

import contextlib
import functools
import math
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_ham.controllers import LSTMHAM, Rollout
from lightning_ham.engines import Unrolled, compiled, episodes, threads, unroll
from lightning_ham.engines.kernels.record import empty_record
from lightning_ham.engines.obstacles import obstacle_to_episodes
from lightning_ham.memory import Engine, HierarchicalAttentiveMemory
from lightning_ham.memory.attention import estimator, get_estimator, straight_through
from lightning_ham.memory.attention.descent import descend
from lightning_ham.memory.transforms import MLPJoin, Search
from lightning_ham.tasks import get_task
from lightning_ham.training import losses

ENGINES: list[Engine] = ["sparse", "fused"]
"""Those that are held against the reference."""
ON_ANY_DEVICE: list[Engine] = ["reference", "sparse"]
"""Those in plain PyTorch."""

INPUT_SIZE, OUTPUT_SIZE = 3, 2
MODES = ["straight_through", "reinforce", "soft", "argmax"]
SAMPLED = ["straight_through", "reinforce"]
DIFFERENTIABLE = [name for name in Rollout._fields if name != "leaves"]


def runs(engine: Engine, mode: str) -> bool:
    """Whether the engine supports this attention; a test below checks the message if it does not."""
    return not (engine == "fused" and mode == "soft")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Case(NamedTuple):
    """A controller, a batch of episodes for it, and a loss of what comes out."""

    options: Mapping[str, Any]
    batch: int
    num_leaves: int
    timesteps: int
    mode: str
    used: frozenset[str]
    """What of the rollout the loss depends on."""
    seed: int
    guided: bool = False

    def controller(self, dtype: torch.dtype, engine: Engine) -> LSTMHAM:
        """With large random weights, so that branches are neither even nor all alike."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, **self.options).double()
            with torch.no_grad():
                model.memory.embed.blank.normal_()
                for part in (model.memory.embed, model.memory.search):
                    for parameter in part.parameters():
                        parameter *= 2
        model.memory.engine = engine
        return model.to(dtype)

    def rollout(self, model: LSTMHAM, inputs: Tensor) -> Rollout:
        occupied = torch.rand(self.batch, self.num_leaves, generator=seeded(self.seed)) < 0.8
        guide = self.guide() if self.guided else None
        rollout = model(inputs, occupied, self.timesteps, self.mode, seeded(self.seed), guide)
        assert guide is None or torch.equal(rollout.leaves, guide)
        return rollout

    def guide(self) -> Tensor:
        accesses = self.timesteps * self.options["accesses_per_output"]
        return torch.randint(self.num_leaves, (self.batch, accesses), generator=seeded(self.seed))

    def inputs(self, dtype: torch.dtype) -> Tensor:
        shape = (self.batch, self.num_leaves, INPUT_SIZE)
        return torch.randn(*shape, dtype=torch.float64, generator=seeded(self.seed)).to(dtype).requires_grad_()

    def loss(self, rollout: Rollout) -> Tensor:
        """Not linear in any part, and another weight for each number of it."""
        total = rollout.outputs.new_zeros(())
        for index, name in enumerate(sorted(self.used)):
            values = getattr(rollout, name)
            weights = torch.randn(values.shape, dtype=torch.float64, generator=seeded(index)).to(values.dtype)
            total = total + (torch.sin(values) * weights).sum()
        return total


@st.composite
def cases(draw, modes=MODES) -> Case:
    leaf_size = draw(st.integers(1, 6))
    return Case(
        options={
            "controller_size": draw(st.integers(1, 6)),
            "leaf_size": leaf_size,
            "hidden_size": draw(st.sampled_from([None, 1, 5])),
            "join": draw(st.sampled_from(["gated", "choice", "mlp"])),
            "accesses_per_output": draw(st.integers(1, 2)),
        },
        batch=draw(st.integers(1, 5)),
        num_leaves=2 ** draw(st.integers(0, 4)),
        timesteps=draw(st.integers(1, 4)),
        mode=draw(st.sampled_from(modes)),
        used=draw(st.frozensets(st.sampled_from(DIFFERENTIABLE), min_size=1)),
        seed=draw(st.integers(0, 2**32)),
        guided=draw(st.booleans()),
    )


def gradients(model: LSTMHAM, inputs: Tensor, loss: Tensor, *, retain: bool = False) -> list[Tensor]:
    of = [inputs, *model.parameters()]
    if not loss.requires_grad:  # the entropy of a tree of one leaf
        return [torch.zeros_like(tensor) for tensor in of]
    return list(torch.autograd.grad(loss, of, materialize_grads=True, retain_graph=retain))


@contextlib.contextmanager
def recorded_margins() -> Iterator[list[Tensor]]:
    """How far every branch of the reference's descents was from the other one."""
    margins: list[Tensor] = []

    def record(tree, query, search, noise, **options):
        rounds = []

        def keep(nodes, query):
            rounds.append(search(nodes, query))
            return rounds[-1]

        descent = descend(tree, query, keep, noise, **options)
        logits = torch.cat([query.new_zeros(len(query), 0), *rounds], dim=1)
        margins.append((logits + (noise if noise.shape[1] else 0)).abs().flatten())
        return descent

    with mock.patch.object(estimator, "descend", record), mock.patch.object(straight_through, "descend", record):
        yield margins


def assert_equals_the_reference(case: Case, engine: Engine, dtype: torch.dtype, tolerance: float) -> None:
    if not runs(engine, case.mode):
        reject()
    results = []
    for name in ("reference", engine):
        model, inputs = case.controller(dtype, name), case.inputs(dtype)
        with recorded_margins() if name == "reference" else contextlib.nullcontext([]) as margins:
            rollout = case.rollout(model, inputs)
        if not (torch.cat([*margins, torch.ones(1)]) > 10 * tolerance).all():
            reject()  # a rounding would decide where to go
        assert all(part.dtype == dtype for part in rollout if part.is_floating_point())
        results.append((rollout, gradients(model, inputs, case.loss(rollout))))
    (expected, expected_gradients), (got, got_gradients) = results
    assert torch.equal(got.leaves, expected.leaves)
    for first, second in zip(got, expected, strict=True):
        torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)
    for first, second in zip(got_gradients, expected_gradients, strict=True):
        size = max(1.0, second.abs().max().item())
        torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance * size)


# The same numbers.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ["reference", *ENGINES])
def test_a_guide_says_where_to_go_and_its_log_probability_teaches_search(engine, mode):
    torch.manual_seed(0)
    model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, controller_size=16, leaf_size=16)
    model.memory.engine = "auto" if engine == "fused" else engine
    inputs, occupied = torch.randn(128, 4, INPUT_SIZE), torch.ones(128, 4, dtype=torch.bool)
    guide = torch.arange(3).expand(128, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        rollout = model(inputs, occupied, 3, mode, guide=guide)
        assert torch.equal(rollout.leaves, guide)
        (-rollout.log_probs.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(model(inputs, occupied, 3, "argmax").leaves, guide)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=120, deadline=None)
@given(case=cases())
def test_rollout_and_gradient_are_those_of_the_reference_in_float64(engine, case):
    assert_equals_the_reference(case, engine, torch.float64, 1e-10)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=120, deadline=None)
@given(case=cases())
def test_rollout_and_gradient_are_those_of_the_reference_in_float32(engine, case):
    assert_equals_the_reference(case, engine, torch.float32, 1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=30, deadline=None)
@given(case=cases(modes=SAMPLED))
def test_going_back_twice_gives_the_same_gradient(engine, case):
    model, inputs = case.controller(torch.float64, engine), case.inputs(torch.float64)
    loss = case.loss(case.rollout(model, inputs))
    first, second = (gradients(model, inputs, loss, retain=True) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", SAMPLED)
def test_two_losses_of_one_rollout_add_up(engine, mode):
    """As in policy gradients: a backward pass through part of the graph, then one through all of it."""
    case = Case({}, 4, 8, 3, mode, frozenset(["outputs", "log_probs"]), 0)
    model, inputs = case.controller(torch.float64, engine), case.inputs(torch.float64)
    rollout = case.rollout(model, inputs)
    separate = [
        gradients(model, inputs, part, retain=True)
        for part in (rollout.outputs[:, :1].pow(2).sum(), rollout.outputs[:, 1:].pow(2).sum(), rollout.log_probs.sum())
    ]
    together = gradients(model, inputs, rollout.outputs.pow(2).sum() + rollout.log_probs.sum())
    for *parts, whole in zip(*separate, together, strict=True):
        torch.testing.assert_close(sum(parts), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize("mode", MODES)
def test_without_gradients_it_is_the_reference_too(engine, mode):
    if not runs(engine, mode):
        pytest.skip("no such attention")
    case = Case({}, 4, 8, 3, mode, frozenset(), 1)
    expected = case.rollout(case.controller(torch.float64, "reference"), case.inputs(torch.float64))
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            got = case.rollout(case.controller(torch.float64, engine), case.inputs(torch.float64))
        for first, second in zip(got, expected, strict=True):
            torch.testing.assert_close(first, second.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", ["auto", "reference", *ENGINES])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_frozen_gets_no_gradient_and_the_rest_gets_its_own(engine, mode):
    """Only the LSTM and WRITE learn: the initial tree has no gradient, but written values have one."""
    if not runs(engine, mode):
        pytest.skip("no such attention")
    case = Case({}, 4, 8, 3, mode, frozenset(["outputs"]), 2)
    results = []
    for name in ("reference", engine):
        model = case.controller(torch.float64, name)
        everything = dict(zip(dict(model.named_parameters()), _trained(case, model), strict=True))
        for part in (model.memory.embed, model.memory.join, model.memory.search):
            part.requires_grad_(False)
        learning = {key: value for key, value in model.named_parameters() if value.requires_grad}
        loss = case.loss(case.rollout(model, case.inputs(torch.float64).detach()))
        results.append(torch.autograd.grad(loss, list(learning.values())))
        for key, gradient in zip(learning, results[-1], strict=True):
            torch.testing.assert_close(gradient, everything[key], rtol=1e-10, atol=1e-10)


def _trained(case: Case, model: LSTMHAM) -> list[Tensor]:
    return gradients(model, inputs := case.inputs(torch.float64), case.loss(case.rollout(model, inputs)))[1:]


def leaves_of(case: Case, model: LSTMHAM, dtype: torch.dtype = torch.float64) -> Tensor:
    inputs = case.inputs(dtype)
    return model.memory.embed(inputs, torch.ones(inputs.shape[:2], dtype=torch.bool))


def steps_of(model: LSTMHAM, leaves: Tensor, accesses: int, mode: str = "straight_through") -> Unrolled:
    return unroll(model.memory, model.lstm, leaves, accesses, mode, seeded(3))


@pytest.mark.parametrize("engine", ["auto", "reference", *ENGINES])
@pytest.mark.parametrize("mode", MODES)
def test_the_callers_leaves_are_left_alone(engine, mode):
    if not runs(engine, mode):
        pytest.skip("no such attention")
    case = Case({}, 4, 8, 3, mode, frozenset(), 3)
    model = case.controller(torch.float64, engine)
    leaves = leaves_of(case, model)
    before = leaves.detach().clone()
    first, second = (steps_of(model, leaves, 3, mode) for _ in range(2))
    first.hidden.sum().backward(retain_graph=True)
    with torch.no_grad():
        steps_of(model, leaves, 3, mode)
    assert torch.equal(leaves, before)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    (leaves.sum() + second.reads.sum()).backward()  # the leaves as they were are still good for a gradient of their own


@pytest.mark.parametrize("engine", ENGINES)
def test_the_leaves_may_be_used_beside_the_episodes(engine):
    """Another use of the leaves adds its gradient to that of the episodes; two rollouts share no memory."""
    case = Case({}, 4, 8, 3, "straight_through", frozenset(), 4)
    results = []
    for name in ("reference", engine):
        model = case.controller(torch.float64, name)
        leaves = leaves_of(case, model)
        loss = steps_of(model, leaves, 2).reads.pow(2).sum() + steps_of(model, leaves, 3).hidden.sum()
        loss = loss + leaves.pow(2).sum()
        results.append(torch.autograd.grad(loss, list(model.memory.embed.parameters())))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("num_leaves", [3, 6])
def test_leaves_that_fill_no_tree_are_refused(engine, num_leaves):
    model = Case({}, 2, 4, 1, "argmax", frozenset(), 0).controller(torch.float64, engine)
    with pytest.raises(ValueError, match=f"a power of two, but got {num_leaves}"):
        steps_of(model, torch.zeros(2, num_leaves, model.memory.leaf_size).double(), 2)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("engine", ["auto", *ON_ANY_DEVICE, "fused"])
def test_a_mode_that_nobody_knows_is_refused_however_many_accesses_there_are(engine, guided):
    case = Case({}, 4, 8, 3, "argmax", frozenset(), 0)
    model = case.controller(torch.float64, engine)
    many = torch.zeros(300, 8, model.memory.leaf_size, dtype=torch.float64)
    for leaves in (many[:1], many):  # auto takes the compiled loops for the second
        guide = torch.zeros(len(leaves), 3, dtype=torch.long) if guided else None
        with pytest.raises(ValueError, match=r"Expected argument `attention` to be one of .* but got 'argmx'\."):
            unroll(model.memory, model.lstm, leaves, 3, "argmx", guide=guide)
        with pytest.raises(ValueError, match=r"Expected argument `attention` to be one of .* but got 'argmx'\."):
            unroll(model.memory, leaves.new_zeros(len(leaves), 3, 32), leaves, 3, "argmx", guide=guide)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_last_write_that_nothing_reads_sends_no_gradient(engine):
    case = Case({}, 4, 8, 1, "straight_through", frozenset(), 5)
    model = case.controller(torch.float64, engine)
    rollout = case.rollout(model, case.inputs(torch.float64))
    write = list(model.memory.write_leaf.parameters())
    given = torch.autograd.grad(rollout.outputs.sum(), write, allow_unused=True, materialize_grads=True)
    assert not any(gradient.any() for gradient in given)
    longer = case._replace(timesteps=2).rollout(model, case.inputs(torch.float64))
    assert all(gradient.any() for gradient in torch.autograd.grad(longer.outputs.sum(), write))


UPDATES = 50


@functools.cache
def trained(engine: Engine, dtype: torch.dtype, mode: str) -> list[Tensor]:
    """The parameters after so many updates."""
    task = get_task("reverse")
    torch.manual_seed(6)
    model = LSTMHAM(task.input_size, task.output_size, controller_size=8, leaf_size=8).to(dtype)
    model.memory.engine = engine
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for update in range(UPDATES):
        episodes = task.sample(16, (2, 8), generator=seeded(update))
        timesteps = episodes.targets.shape[1]
        rollout = model(episodes.inputs.to(dtype), episodes.occupied, timesteps, mode, seeded(update))
        likelihood = losses.log_likelihood(rollout.outputs, episodes.targets.to(dtype), episodes.scored)
        loss = -likelihood.mean() - 0.01 * rollout.entropies.mean()
        if mode == "reinforce":
            everywhere = torch.ones_like(likelihood, dtype=torch.bool)
            loss = loss + losses.policy_gradient_loss(rollout.log_probs, likelihood.detach(), everywhere)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for now, then in zip(model.parameters(), before, strict=True):
        assert (now - then).abs().max() > 1e-3
    return list(model.parameters())


@pytest.mark.parametrize(
    ("engine", "dtype", "tolerance"),
    [
        ("sparse", torch.float64, 1e-8),
        ("fused", torch.float64, 1e-8),
        ("fused", torch.float32, 1e-3),  # is other code than for float64
    ],
)
@pytest.mark.parametrize("mode", SAMPLED)
def test_the_same_weights_after_fifty_updates(engine, dtype, tolerance, mode):
    """Within a tolerance, as they drift apart: Adam amplifies the rounding of small gradients."""
    for got, expected in zip(trained(engine, dtype, mode), trained("reference", dtype, mode), strict=True):
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


# Less work.


class CountBytes(TorchDispatchMode):
    """Counts the bytes that operations produce, in new tensors and by overwriting others.

    Views produce nothing. What an operation on rows overwrites is as large as the rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        given = {tensor.untyped_storage()._cdata for tensor in tensors}
        row_operation = func._schema.name in {"aten::index_add_", "aten::index_copy_"}
        for output in torch.utils._pytree.tree_leaves(result):
            if not isinstance(output, Tensor):
                continue
            if output.untyped_storage()._cdata not in given:
                self.bytes += output.untyped_storage().nbytes()
            elif row_operation:
                self.bytes += tensors[-1].numel() * tensors[-1].element_size()
            elif func._schema.name == "aten::index_fill_":
                self.bytes += tensors[1].numel() * output[0].numel() * output.element_size()
            elif func._schema.is_mutable:
                self.bytes += output.numel() * output.element_size()
        return result


def bytes_per_access(engine: Engine, mode: str, num_leaves: int) -> tuple[float, float]:
    """What one more access costs, forward and backward."""
    case = Case({"controller_size": 4, "leaf_size": 8}, 2, num_leaves, 0, mode, frozenset(), 7)
    model = case.controller(torch.float32, engine)
    totals = []
    for accesses in (4, 12):
        leaves = leaves_of(case, model, torch.float32)
        with CountBytes() as forward:
            steps = steps_of(model, leaves, accesses, mode)
            loss = steps.hidden.sum() + steps.log_probs.sum() + steps.entropies.sum() + steps.logits.sum()
        with CountBytes() as backward:
            torch.autograd.grad(loss, [leaves, *model.lstm.parameters()])
        totals.append((forward.bytes, backward.bytes))
    (few, few_back), (many, many_back) = totals
    return (many - few) / 8, (many_back - few_back) / 8


SMALL, LARGE = 64, 1024


@pytest.mark.parametrize("engine", ["auto", "sparse"])
@pytest.mark.parametrize("mode", ["straight_through", "reinforce", "argmax"])
def test_an_access_costs_no_more_than_its_path(engine, mode):
    small, large = (bytes_per_access(engine, mode, num_leaves) for num_leaves in (SMALL, LARGE))
    depth, deeper = math.log2(SMALL), math.log2(LARGE)
    # Counterfactual descents meet depth * (depth + 1) / 2 nodes.
    forward = (deeper * (deeper + 1)) / (depth * (depth + 1)) if mode == "straight_through" else deeper / depth
    assert large[0] <= 1.05 * forward * small[0]
    assert large[1] <= 1.05 * deeper / depth * small[1]
    a_tree = 2 * LARGE * 2 * 8 * 4
    assert large[1] < a_tree, "what is counted is less than one pass over the tree, so it cannot hold one"


def test_an_access_of_the_reference_costs_whole_trees():
    """The count sees what it should."""
    small, large = (bytes_per_access("reference", "reinforce", num_leaves) for num_leaves in (SMALL, LARGE))
    a_tree = 2 * LARGE * 2 * 8 * 4
    assert large[0] > a_tree
    assert large[1] > 2 * a_tree
    assert large[1] > 4 * small[1]


@pytest.mark.parametrize("engine", ["auto", "sparse"])
def test_an_access_without_gradients_costs_no_more_than_its_path(engine):
    costs = []
    for num_leaves in (SMALL, LARGE):
        case = Case({"controller_size": 4, "leaf_size": 8}, 2, num_leaves, 0, "argmax", frozenset(), 8)
        model, totals = case.controller(torch.float32, engine), []
        with torch.no_grad():
            for accesses in (4, 12):
                leaves = leaves_of(case, model, torch.float32)
                with CountBytes() as count:
                    steps_of(model, leaves, accesses, "argmax")
                totals.append(count.bytes)
        costs.append(totals[1] - totals[0])
    assert costs[1] <= 1.05 * math.log2(LARGE) / math.log2(SMALL) * costs[0]


def test_what_the_fused_engine_keeps_of_an_access_grows_with_its_path():
    """Its compiled loops allocate nothing else for an access: the rest is as large as a tree, once."""
    controller = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, 4, 8)
    w = compiled._arrays(compiled._pack(controller.memory, controller.lstm))
    kept = []
    for num_leaves in (SMALL, LARGE):
        sizes = []
        for accesses in (4, 12):
            record, _ = empty_record(torch.zeros(2, num_leaves, 8).numpy(), accesses, w, keep=True)
            sizes.append(sum(array.nbytes for array in record))
        kept.append((sizes[1] - sizes[0]) / 8)
    assert kept[1] <= math.log2(LARGE) / math.log2(SMALL) * kept[0]


# What the fused engine adds.


BATCHES = [1, 7, 63, 65, 130]
"""No multiples of the lanes that run together, and none of 8."""


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_of_threads_changes_no_bit(batch, dtype):
    case = Case({"hidden_size": 5}, batch, 8, 3, "straight_through", frozenset(), 13)
    model = case.controller(dtype, "fused")
    leaves = leaves_of(case, model, dtype).detach().requires_grad_()
    parts = (model.memory.join, model.memory.search, model.memory.write_leaf, model.lstm)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    results = []
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            steps = steps_of(model, leaves, 3)
            loss = steps.hidden.sum() + steps.reads.pow(2).sum() + steps.logits.sum()
            results.append([*steps[:4], *torch.autograd.grad(loss, [leaves, *parameters])])
    finally:
        torch.set_num_threads(before)
    for one, *others in zip(*results, strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_threads_go_to_the_compiled_loops_where_those_do_the_work(monkeypatch):
    monkeypatch.setattr(threads, "_threads", None)
    before = torch.get_num_threads()
    try:
        threads.set_num_threads(3, compiled=True)
        assert (threads.get_num_threads(), torch.get_num_threads()) == (3, 1)
        together = threading.Barrier(3)
        threads.for_blocks(3 * threads.LANES, lambda *_: together.wait(timeout=60))  # passes if three run at once
        threads.set_num_threads(2, compiled=False)
        assert (threads.get_num_threads(), torch.get_num_threads()) == (2, 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("mode", SAMPLED)
def test_batches_of_any_size_are_those_of_the_reference(batch, mode):
    case = Case({"hidden_size": 9, "leaf_size": 5}, batch, 8, 3, mode, frozenset(DIFFERENTIABLE), 14)
    assert_equals_the_reference(case, "fused", torch.float64, 1e-10)


def test_leaves_may_lie_in_memory_as_they_like_and_be_parameters():
    case = Case({}, 4, 8, 3, "straight_through", frozenset(), 22)
    model = case.controller(torch.float64, "fused")
    leaves = leaves_of(case, model).detach()
    results = []
    for same in (leaves, leaves.transpose(0, 2).contiguous().transpose(0, 2), torch.nn.Parameter(leaves)):
        same.requires_grad_()
        steps = steps_of(model, same, 3)
        results.append([steps.hidden, *torch.autograd.grad(steps.hidden.sum(), same)])
    assert not leaves.transpose(0, 2).contiguous().transpose(0, 2).is_contiguous()
    for one, *others in zip(*results, strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_where_nothing_learns_nothing_asks_for_a_gradient():
    case = Case({}, 4, 8, 3, "reinforce", frozenset(), 23)
    model = case.controller(torch.float64, "fused").requires_grad_(False)
    steps = steps_of(model, leaves_of(case, model).detach(), 3)
    assert not any(part.requires_grad for part in steps)


def test_no_episodes_at_all():
    model = Case({}, 4, 8, 3, "argmax", frozenset(), 24).controller(torch.float64, "fused")
    steps = steps_of(model, torch.zeros(0, 8, 32).double(), 3)
    assert steps.hidden.shape == (0, 3, 32)
    steps.hidden.sum().backward()
    assert not model.lstm.weight_hh.grad.any()


@pytest.mark.parametrize("engine", ["sparse", "fused"])
def test_a_cell_may_have_no_bias(engine):
    case = Case({}, 4, 8, 3, "straight_through", frozenset(["outputs"]), 25)
    results = []
    for name in ("reference", engine):
        model, inputs = case.controller(torch.float64, name), case.inputs(torch.float64)
        with torch.random.fork_rng():
            torch.manual_seed(25)
            model.lstm = torch.nn.LSTMCell(32, 32, bias=False).double()
        results.append(gradients(model, inputs, case.loss(case.rollout(model, inputs))))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_has_diverged_shows(value, join, dtype):
    """A NaN or an infinity spreads to the same results as in the reference, wherever it begins."""
    case = Case(
        {"join": join, "leaf_size": 5, "controller_size": 6}, 4, 8, 3, "reinforce", frozenset(DIFFERENTIABLE), 26
    )
    names = [
        name for name, _ in case.controller(dtype, "fused").named_parameters() if name.startswith(("memory.", "ls"))
    ]
    for name in names:
        finite, norms = [], []
        for engine in ("reference", "fused"):
            model, inputs = case.controller(dtype, engine), case.inputs(dtype)
            with torch.no_grad():
                model.get_parameter(name).view(-1)[0] = value
            rollout = case.rollout(model, inputs)
            finite.append([part.isfinite() for part in rollout])
            norms.append(sum(gradient.abs().sum() for gradient in gradients(model, inputs, case.loss(rollout))))
        assert all(map(torch.equal, *finite)), name
        assert norms[0].isfinite() or not norms[1].isfinite(), name


@pytest.mark.parametrize("change", ["parameter", "leaves", "hidden"])
def test_going_back_after_something_has_changed_is_refused(change):
    """As it is elsewhere in PyTorch: the gradient would be that of nothing that was computed."""
    case = Case({}, 4, 8, 3, "straight_through", frozenset(), 27)
    model = case.controller(torch.float64, "fused")
    steps = steps_of(model, leaves_of(case, model), 3)
    loss = steps.logits.sum()
    with torch.no_grad():
        {"parameter": model.memory.search.out.weight, "leaves": steps.leaves, "hidden": steps.hidden}[change].mul_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_going_back_twice_must_be_announced():
    case = Case({}, 4, 8, 3, "straight_through", frozenset(), 28)
    model = case.controller(torch.float64, "fused")
    loss = steps_of(model, leaves_of(case, model).detach(), 3).hidden.sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_two_rollouts_alive_at_once_do_not_share_memory():
    model = Case({}, 4, 8, 3, "straight_through", frozenset(), 15).controller(torch.float64, "fused")
    batches = [
        Case({}, 4, 8, 3, "straight_through", frozenset(["outputs", "log_probs"]), seed) for seed in (16, 17, 18)
    ]
    alone = [
        gradients(model, inputs := case.inputs(torch.float64), case.loss(case.rollout(model, inputs)))
        for case in batches
    ]
    alive = [(case, inputs := case.inputs(torch.float64), case.rollout(model, inputs)) for case in batches]
    for index in (1, 2, 0):
        case, inputs, rollout = alive[index]
        with torch.no_grad():
            case.rollout(model, inputs)
        for got, expected in zip(gradients(model, inputs, case.loss(rollout)), alone[index], strict=True):
            assert torch.equal(got, expected)


class OtherSearch(Search):
    def forward(self, nodes, query):
        return -super().forward(nodes, query)


def other_search(model: LSTMHAM) -> None:
    model.memory.search = OtherSearch(32, 32, 32).double()


def other_linear(model: LSTMHAM) -> None:
    model.memory.write_leaf.leaf = torch.nn.Sequential(model.memory.write_leaf.leaf, torch.nn.Dropout(0.0))


def other_activation(model: LSTMHAM) -> None:
    model.memory.join = MLPJoin(32, 32).double()
    model.memory.join.mlp[1] = torch.nn.Tanh()


def other_forward(model: LSTMHAM) -> None:
    forward = model.memory.search.forward
    model.memory.search.forward = lambda nodes, query: -forward(nodes, query)


def other_attend(model: LSTMHAM) -> None:
    attend = model.memory.attend
    model.memory.attend = lambda *arguments: attend(*arguments)._replace(read=torch.zeros(4, 32).double())


def other_write(model: LSTMHAM) -> None:
    class Memory(HierarchicalAttentiveMemory):
        def write(self, access, query, *, in_place=False):
            return access.tree

    model.memory.__class__ = Memory


def other_cell(model: LSTMHAM) -> None:
    class Cell(torch.nn.LSTMCell):
        def forward(self, inputs, state):
            return super().forward(-inputs, state)

    model.lstm.__class__ = Cell


HOOKS = ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"]


def hooked(kind: str):
    return lambda model: getattr(model.memory.join, f"register_{kind}")(lambda *_: None)


def hooked_layer(model: LSTMHAM) -> None:
    model.memory.search.node.register_forward_hook(lambda *_: None)


def parametrized_write(model: LSTMHAM) -> None:
    torch.nn.utils.parametrizations.weight_norm(model.memory.write_leaf.leaf)


@pytest.mark.parametrize(
    ("change", "mode", "dtype", "reason"),
    [
        (None, "soft", torch.float64, "visits every leaf"),
        (None, "argmax", torch.bfloat16, "float32 or float64 only"),
        (None, "argmax", torch.float16, "float32 or float64 only"),
        (other_search, "argmax", torch.float64, "does not know what OtherSearch does"),
        (other_linear, "argmax", torch.float64, "does not know what Write does"),
        (other_activation, "argmax", torch.float64, "does not know what MLPJoin does"),
        (other_forward, "argmax", torch.float64, "does not know what Search does"),
        (other_attend, "argmax", torch.float64, "does not know what HierarchicalAttentiveMemory.attend does"),
        (other_write, "argmax", torch.float64, "does not know what Memory.write does"),
        (other_cell, "argmax", torch.float64, "does not know what Cell does"),
        (hooked_layer, "argmax", torch.float64, "does not know what Search does"),
        *((hooked(kind), "argmax", torch.float64, "does not know what GatedJoin does") for kind in HOOKS),
    ],
)
def test_what_it_cannot_run_is_refused_with_the_reason_and_auto_runs_it(monkeypatch, change, mode, dtype, reason):
    monkeypatch.setattr(episodes, "ACCESSES_WORTH_COMPILING", 1)
    case = Case({}, 4, 8, 3, mode, frozenset(), 19)
    model = case.controller(torch.float64, "fused").to(dtype)
    if change:
        change(model)
    with pytest.raises(ValueError, match=reason):
        case.rollout(model, case.inputs(dtype))
    model.memory.engine = "auto"
    got = case.rollout(model, case.inputs(dtype))
    model.memory.engine = "reference"
    assert torch.equal(got.outputs, case.rollout(model, case.inputs(dtype)).outputs)


def test_half_precision_and_other_devices_are_refused_with_the_reason():
    model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, 5, 4)

    def reason(leaves: Tensor) -> str | None:
        return obstacle_to_episodes(model.memory, model.lstm, leaves, "argmax", get_estimator("argmax"))

    leaves = torch.zeros(2, 8, 4)
    assert reason(leaves) is None
    assert reason(leaves.to("meta")) == "it runs on the CPU, and the memory is on 'meta'"
    assert "FakeTensor" in reason(FakeTensorMode().from_tensor(leaves))
    assert "float32 or float64 only" in reason(leaves.half())
    assert "does not know what" in reason(leaves.double())  # not of the type of the parameters
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "float32 or float64 only" in reason(leaves)
    with torch.autocast("cuda", enabled=torch.cuda.is_available()):
        assert reason(leaves) is None


def test_without_numba_it_says_so(monkeypatch):
    model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, 5, 4)
    monkeypatch.setattr("lightning_ham.engines.obstacles.has_numba", lambda: False)
    leaves = torch.zeros(2, 8, 4)
    reason = obstacle_to_episodes(model.memory, model.lstm, leaves, "argmax", get_estimator("argmax"))
    assert reason == "it needs Numba: pip install numba"


@pytest.mark.parametrize("engine", ["auto", "fused"])
@pytest.mark.parametrize(("leaf_size", "seen", "state"), [(3, 4, 5), (4, 9, 5), (4, 4, 9)])
def test_sizes_that_do_not_fit_are_refused(monkeypatch, engine, leaf_size, seen, state):
    """Compiled loops would read memory beyond an array."""
    monkeypatch.setattr(episodes, "ACCESSES_WORTH_COMPILING", 1)
    memory = HierarchicalAttentiveMemory(INPUT_SIZE, 5, 4, engine=engine)
    cell = torch.nn.LSTMCell(seen, state)
    with pytest.raises(ValueError if engine == "fused" else RuntimeError, match=r"fit together|input_size|shape"):
        unroll(memory, cell, torch.zeros(2, 8, leaf_size), 2)


def test_parametrized_weights_are_the_ones_it_uses():
    """Weight norm computes `weight` at every read."""
    case = Case({}, 4, 8, 3, "straight_through", frozenset(["outputs"]), 20)
    results = []
    for engine in ("reference", "fused"):
        model, inputs = case.controller(torch.float64, engine), case.inputs(torch.float64)
        parametrized_write(model)
        results.append(gradients(model, inputs, case.loss(case.rollout(model, inputs))))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_auto_takes_it_for_large_batches_only():
    case = Case({}, 4, 8, 3, "argmax", frozenset(), 21)
    model = case.controller(torch.float32, "auto")
    with mock.patch.object(episodes, "run_episodes", side_effect=episodes.run_episodes) as run:
        case.rollout(model, case.inputs(torch.float32))
        assert not run.called
        large = case._replace(batch=128)
        large.rollout(model, large.inputs(torch.float32))
        assert run.called


# Any device, and half precision.


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("num_leaves", [1, 8])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ON_ANY_DEVICE)
def test_it_needs_no_value_of_a_tensor_and_stays_on_its_device(engine, mode, num_leaves, device):
    # A fake tensor has no values: `.item()`, `bool(...)` and the like raise, as does a mixture of devices.
    with FakeTensorMode() as fake:
        with torch.device(device):
            model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, 5, 4, accesses_per_output=2)
            inputs, occupied = torch.zeros(4, num_leaves, INPUT_SIZE), torch.ones(4, num_leaves, dtype=torch.bool)
        model.memory.engine = engine
        rollout = model(inputs, occupied, 3, mode)
        loss = sum(getattr(rollout, name).sum() for name in DIFFERENTIABLE)
        loss.backward()
        with torch.no_grad():
            model(inputs, occupied, 3, mode)
        with pytest.raises(DataDependentOutputException):
            loss.item()
    assert {tensor.fake_mode for tensor in rollout} == {fake}
    assert {tensor.device.type for tensor in rollout} == {device}
    assert rollout.outputs.shape == (4, 3, OUTPUT_SIZE)
    unused = {"memory.search", "memory.join", "memory.embed.blank"} if num_leaves == 1 else set()
    for name, parameter in model.named_parameters():
        if not any(name.startswith(prefix) for prefix in unused):
            assert parameter.grad.shape == parameter.shape, name
            assert parameter.grad.device.type == device


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ON_ANY_DEVICE)
def test_meta_tensors_suffice(engine, mode):
    with torch.device("meta"):
        model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, 5, 4)
        inputs, occupied = torch.zeros(4, 8, INPUT_SIZE), torch.ones(4, 8, dtype=torch.bool)
    model.memory.engine = engine
    rollout = model(inputs, occupied, 3, mode)
    (rollout.outputs.sum() + rollout.log_probs.sum() + rollout.entropies.sum()).backward()
    assert all(parameter.grad.is_meta for parameter in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ["auto", *ON_ANY_DEVICE])
def test_on_cuda_without_waiting_for_it(engine, mode):
    case = Case({}, 8, 16, 4, mode, frozenset(["outputs", "log_probs", "entropies"]), 9)
    model = case.controller(torch.float32, engine).cuda()
    inputs, occupied = case.inputs(torch.float32).detach().cuda(), torch.ones(8, 16, dtype=torch.bool, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        rollout = model(inputs, occupied, 4, mode, generator)
        sum(getattr(rollout, name).sum() for name in sorted(case.used)).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if mode in ("argmax", "soft"):
        on_cpu = model.cpu()(inputs.cpu(), occupied.cpu(), 4, mode)
        torch.testing.assert_close(rollout.outputs.cpu(), on_cpu.outputs, rtol=1e-3, atol=1e-3)


@pytest.fixture
def half_precision() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


@pytest.mark.usefixtures("half_precision")
@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ON_ANY_DEVICE)
def test_under_autocast_nodes_keep_the_type_of_the_parameters(engine, mode, join):
    case = Case({"join": join}, 4, 8, 3, mode, frozenset(DIFFERENTIABLE), 10)
    model, inputs = case.controller(torch.float32, engine), case.inputs(torch.float32)
    tree = model.memory.init(inputs)
    assert tree.nodes.dtype == torch.float32
    query = torch.randn(4, 32)
    access = model.memory.attend(tree, query, mode, seeded(0))
    assert {part.dtype for part in (access.read, access.path, access.siblings, access.logits)} == {torch.float32}
    assert model.memory.write(access, query).nodes.dtype == torch.float32
    assert model.memory.search.node(tree.nodes).dtype == torch.bfloat16  # the products are in half precision

    rollout = case.rollout(model, inputs)
    assert {getattr(rollout, name).dtype for name in ("states", "log_probs", "entropies", "branch_probs")} == {
        torch.float32
    }
    loss = sum(getattr(rollout, name).float().sum() for name in DIFFERENTIABLE)
    for gradient in gradients(model, inputs, loss):
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all()


@pytest.mark.parametrize("engine", ON_ANY_DEVICE)
def test_under_autocast_the_numbers_are_close(engine):
    case = Case({"controller_size": 6, "leaf_size": 6}, 16, 8, 3, "soft", frozenset(["outputs"]), 11)
    model, inputs = case.controller(torch.float32, engine), case.inputs(torch.float32)
    exact = case.rollout(model, inputs).outputs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = case.rollout(model, inputs).outputs
    assert not torch.equal(rounded.float(), exact)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("engine", ON_ANY_DEVICE)
def test_parameters_in_half_precision_work_too(engine, mode):
    case = Case({}, 4, 8, 3, mode, frozenset(["outputs"]), 12)
    model, inputs = case.controller(torch.bfloat16, engine), case.inputs(torch.bfloat16)
    rollout = case.rollout(model, inputs)
    assert rollout.outputs.dtype == torch.bfloat16
    assert all(gradient.isfinite().all() for gradient in gradients(model, inputs, case.loss(rollout)))
