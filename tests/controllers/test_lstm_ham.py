"""LSTM+HAM against an independent loop over one episode's leaves, timesteps and accesses."""

import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from lightning_ham.controllers import LSTMHAM, Rollout

INPUT_SIZE, OUTPUT_SIZE = 3, 2
SIZES = {"controller_size": 5, "leaf_size": 4, "hidden_size": 6}
MODES = ["reinforce", "straight_through", "soft", "argmax"]
SAMPLED = ["reinforce", "straight_through"]
EXACT = {"rtol": 1e-10, "atol": 1e-10}
VARIANTS = [
    {},
    {"accesses_per_output": 3},
    {"readout": "state"},
    {"readout": "read"},
    {"join": "mlp", "accesses_per_output": 2},
]


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_controller(**options) -> LSTMHAM:
    """A controller whose branches are neither even nor certain, and differ from episode to episode."""
    model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, **(SIZES | options))
    memory = model.memory
    with torch.no_grad():
        memory.embed.blank.normal_()
        for parameter in memory.embed.mlp.parameters():
            parameter *= 3
        tree = memory.init(*random_episodes(200, 8))
        logits = memory.search(tree.nodes[:, 1:8], 0.2 * torch.randn(200, SIZES["controller_size"]))
        memory.search.out.bias -= logits.mean()
        for parameter in memory.search.out.parameters():
            parameter /= logits.std()
    return model


def random_episodes(batch: int, num_leaves: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(batch, num_leaves, INPUT_SIZE)
    occupied = torch.rand(batch, num_leaves) < 0.7
    return inputs, occupied


def follow(model: LSTMHAM, inputs: Tensor, occupied: Tensor, leaves: list[int]) -> dict[str, Tensor]:
    """What one episode's rollout is if its accesses go to `leaves`; every write is followed by a full rebuild."""
    memory = model.memory
    num_leaves = len(inputs)
    cells = list(memory.embed(inputs.unsqueeze(0), occupied.unsqueeze(0))[0])
    hidden = cell = torch.zeros(1, SIZES["controller_size"])
    results: dict[str, list[Tensor]] = {name: [] for name in Rollout._fields if name != "leaves"}
    for access, leaf in enumerate(leaves, 1):
        heap = dict(enumerate(cells, num_leaves))
        for row in reversed(range(1, num_leaves)):
            heap[row] = memory.join(heap[2 * row], heap[2 * row + 1])
        results["states"].append(hidden[0])

        log_prob, entropy, rights = torch.zeros(()), torch.zeros(()), []
        row = num_leaves + leaf
        for up in range(num_leaves.bit_length() - 1, 0, -1):
            node = heap[row >> up].view(1, 1, -1)
            right = torch.sigmoid(memory.search(node, hidden)).view(())
            log_prob = log_prob + (right if row >> (up - 1) & 1 else 1 - right).log()
            entropy = entropy - right * right.log() - (1 - right) * (1 - right).log()
            rights.append(right)
        results["log_probs"].append(log_prob)
        results["entropies"].append(entropy)
        results["branch_probs"].append(torch.stack(rights) if rights else torch.zeros(0))

        read = cells[leaf]
        hidden, cell = model.lstm(read.unsqueeze(0), (hidden, cell))
        cells[leaf] = memory.write_leaf(read.unsqueeze(0), hidden)[0]
        if access % model.accesses_per_output == 0:
            seen = {"state": hidden[0], "read": read, "state_and_read": torch.cat((hidden[0], read))}[model.readout]
            results["outputs"].append(model.head(seen))
    return {name: torch.stack(values) for name, values in results.items()}


@pytest.mark.parametrize("num_leaves", [1, 2, 8])
@pytest.mark.parametrize("mode", ["argmax", "reinforce"])
@pytest.mark.parametrize("options", VARIANTS)
def test_rollout_equals_a_plain_loop_with_its_gradient(options, mode, num_leaves):
    batch, timesteps = 4, 3
    model = make_controller(**options)
    inputs, occupied = random_episodes(batch, num_leaves)
    rollout = model(inputs, occupied, timesteps, mode, seeded(1))
    assert rollout.leaves.shape == (batch, timesteps * model.accesses_per_output)
    references = [
        follow(model, *episode, leaves)
        for *episode, leaves in zip(inputs, occupied, rollout.leaves.tolist(), strict=True)
    ]
    got_total, expected_total = torch.zeros(()), torch.zeros(())
    for name in references[0]:
        got, expected = getattr(rollout, name), torch.stack([reference[name] for reference in references])
        torch.testing.assert_close(got, expected, **EXACT)
        weights = torch.randn(got.shape)
        got_total = got_total + (got * weights).sum()
        expected_total = expected_total + (expected * weights).sum()
    for got, expected in zip(
        *(
            torch.autograd.grad(total, list(model.parameters()), materialize_grads=True)
            for total in (got_total, expected_total)
        ),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, **EXACT)


def test_argmax_goes_right_iff_the_probability_is_above_one_half():
    model = make_controller(accesses_per_output=2)
    rollout = model(*random_episodes(32, 16), 4)
    went_right = (rollout.branch_probs > 0.5).long()  # [batch, accesses, depth]
    assert torch.equal((went_right * torch.tensor([8, 4, 2, 1])).sum(-1), rollout.leaves)
    assert len(rollout.leaves.unique()) > 4


@pytest.mark.parametrize("mode", MODES)
def test_without_gradients_the_rollout_is_the_same(mode):
    model = make_controller(accesses_per_output=2)
    episodes = random_episodes(8, 8)
    with_gradients = model(*episodes, 4, mode, seeded(2))
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            without = model(*episodes, 4, mode, seeded(2))
        for first, second in zip(with_gradients, without, strict=True):
            torch.testing.assert_close(first.detach(), second)


@pytest.mark.parametrize("mode", MODES)
def test_inputs_and_memory_of_the_caller_are_left_alone(mode):
    model = make_controller()
    inputs, occupied = random_episodes(4, 8)
    before = inputs.clone(), occupied.clone()
    with torch.no_grad():
        first = model(inputs, occupied, 3, mode, seeded(3))
        second = model(inputs, occupied, 3, mode, seeded(3))
    assert torch.equal(inputs, before[0])
    assert torch.equal(occupied, before[1])
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("mode", MODES)
def test_more_timesteps_do_not_change_the_earlier_ones(mode):
    model = make_controller(accesses_per_output=2)
    episodes = random_episodes(4, 8)
    short = model(*episodes, 3, mode, seeded(4))
    long = model(*episodes, 7, mode, seeded(4))
    for name, early, all_of_it in zip(Rollout._fields, short, long, strict=True):
        torch.testing.assert_close(early, all_of_it[:, : 3 if name == "outputs" else 6], **EXACT)
        assert all_of_it.shape[1] == (7 if name == "outputs" else 14)


@pytest.mark.parametrize("mode", MODES)
def test_no_episode_depends_on_another(mode):
    model = make_controller()
    inputs, occupied = random_episodes(5, 8)
    others, occupied_by_others = random_episodes(5, 8)
    others[3], occupied_by_others[3] = inputs[3], occupied[3]
    first = model(inputs, occupied, 4, mode, seeded(5))
    second = model(others, occupied_by_others, 4, mode, seeded(5))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a[3], b[3], **EXACT)
    for episode in (0, 1, 2, 4):
        assert not torch.allclose(first.outputs[episode], second.outputs[episode])


@pytest.mark.parametrize("mode", ["argmax", "soft"])
def test_the_order_and_the_size_of_a_batch_do_not_matter(mode):
    model = make_controller()
    inputs, occupied = random_episodes(6, 8)
    straight = model(inputs, occupied, 4, mode)
    for order in ([4, 0, 5, 2, 1, 3], [3], [2, 2]):
        permuted = model(inputs[order], occupied[order], 4, mode)
        for a, b in zip(permuted, straight, strict=True):
            torch.testing.assert_close(a, b[order], **EXACT)


@pytest.mark.parametrize("mode", MODES)
def test_inputs_of_blank_cells_change_nothing(mode):
    model = make_controller()
    inputs, _ = random_episodes(4, 8)
    occupied = torch.arange(8).expand(4, -1) < torch.tensor([[1], [3], [5], [7]])
    others = torch.where(occupied.unsqueeze(-1), inputs, 100 * torch.randn(4, 8, INPUT_SIZE))
    for a, b in zip(
        model(inputs, occupied, 8, mode, seeded(6)), model(others, occupied, 8, mode, seeded(6)), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("mode", SAMPLED)
def test_the_same_seed_gives_the_same_rollout_and_another_seed_another(mode):
    model = make_controller()
    episodes = random_episodes(8, 8)
    global_state = torch.get_rng_state()
    first, again, other = (model(*episodes, 4, mode, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), global_state)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.leaves, other.leaves)


@pytest.mark.parametrize("mode", SAMPLED)
def test_every_access_draws_anew(mode):
    model = make_controller(accesses_per_output=2)
    with torch.no_grad():
        for parameter in model.memory.search.parameters():
            parameter.zero_()  # even branches, whatever the access
    leaves = model(*random_episodes(500, 8), 2, mode, seeded(9)).leaves
    same = leaves.unsqueeze(1) == leaves.unsqueeze(2)  # [batch, accesses, accesses]
    share = same.double().mean(0)[~torch.eye(4, dtype=torch.bool)]
    assert (share - 1 / 8).abs().max() < 4.5 * (1 / 8 * 7 / 8 / 500) ** 0.5


# Gradients.


@pytest.mark.parametrize("mode", ["straight_through", "soft"])
@pytest.mark.parametrize("options", VARIANTS)
def test_the_gradient_of_the_outputs_reaches_every_parameter(options, mode):
    model = make_controller(**options)
    model(*random_episodes(32, 8), 3, mode, seeded(10)).outputs.pow(2).sum().backward()
    assert [name for name, weight in model.named_parameters() if not weight.grad.any()] == []


def test_in_reinforce_the_branches_are_reached_through_their_log_probabilities_only():
    model = make_controller()
    rollout = model(*random_episodes(32, 8), 3, "reinforce", seeded(11))
    for values, reached in (
        (rollout.outputs, False),
        (rollout.states, False),
        (rollout.log_probs, True),
        (rollout.entropies, True),
    ):
        gradients = torch.autograd.grad(
            values.sum(), list(model.memory.search.parameters()), retain_graph=True, materialize_grads=True
        )
        assert all(gradient.any() == reached for gradient in gradients)


# Options.


def rollout_and_gradient(**options) -> tuple[Rollout, Tensor]:
    """A rollout of a freshly seeded controller, and the gradient that its read values send to SEARCH."""
    torch.manual_seed(1)
    model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, **options)
    inputs = torch.randn(4, 8, INPUT_SIZE, generator=seeded(12))
    rollout = model(inputs, torch.ones(4, 8, dtype=torch.bool), 3, "straight_through", seeded(13))
    (gradient,) = torch.autograd.grad(rollout.outputs.sum(), model.memory.search.out.weight)
    return rollout, gradient


@pytest.mark.parametrize(
    ("option", "value", "default"),
    [
        ("controller_size", 16, 32),
        ("leaf_size", 16, 32),
        ("hidden_size", 16, None),
        ("hidden_size", 16, 32),
        ("join", "mlp", "gated"),
        ("real_inputs", 2, 0),
        ("accesses_per_output", 2, 1),
        ("readout", "state", "state_and_read"),
        ("readout", "read", "state_and_read"),
        ("grid", 0.25, None),
    ],
)
def test_every_option_changes_the_outputs(option, value, default):
    changed, _ = rollout_and_gradient(**{option: value})
    unchanged, _ = rollout_and_gradient(**{option: default})
    by_default, _ = rollout_and_gradient()
    assert torch.equal(unchanged.outputs, by_default.outputs)
    assert not torch.allclose(changed.outputs, by_default.outputs)


def test_the_default_attention_is_argmax():
    model, episodes = make_controller(), random_episodes(8, 8)
    assert torch.equal(model(*episodes, 3).outputs, model(*episodes, 3, "argmax").outputs)
    assert not torch.equal(model(*episodes, 3, "soft").outputs, model(*episodes, 3).outputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 0}, "Expected argument `input_size` to be at least 1, but got 0."),
        ({"output_size": 0}, "Expected argument `output_size` to be at least 1, but got 0."),
        ({"controller_size": 0}, "Expected argument `controller_size` to be at least 1, but got 0."),
        ({"leaf_size": 0}, "Expected argument `leaf_size` to be at least 1, but got 0."),
        ({"hidden_size": 0}, "Expected argument `hidden_size` to be at least 1, but got 0."),
        ({"join": "mpl"}, "Expected argument `join` to be one of ('gated', 'choice', 'mlp'), but got 'mpl'."),
        (
            {"real_inputs": 4},
            "Expected argument `real_inputs` to be between 0 and `input_size` (3), and below half of "
            "`leaf_size` (32), but got 4.",
        ),
        ({"accesses_per_output": 0}, "Expected argument `accesses_per_output` to be at least 1, but got 0."),
    ],
)
def test_constructor_errors_name_the_callers_argument(options, message):
    arguments = {"input_size": INPUT_SIZE, "output_size": OUTPUT_SIZE} | options
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LSTMHAM(**arguments)


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"Expected argument `attention` to be one of .* but got 'hard'"):
        make_controller()(*random_episodes(1, 2), 1, "hard")


# Devices.


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("mode", MODES)
def test_a_rollout_needs_no_value_of_a_tensor_and_stays_on_its_device(mode, device):
    # A fake tensor has no values: `.item()`, `bool(...)` and the like raise, as does a mixture of devices.
    with FakeTensorMode() as fake:
        with torch.device(device):
            model = LSTMHAM(INPUT_SIZE, OUTPUT_SIZE, **SIZES)
            inputs, occupied = torch.zeros(4, 8, INPUT_SIZE), torch.ones(4, 8, dtype=torch.bool)
        rollout = model(inputs, occupied, 3, mode)
        (rollout.outputs.sum() + rollout.log_probs.sum() + rollout.entropies.sum()).backward()
        with pytest.raises(DataDependentOutputException):
            rollout.outputs.sum().item()
    assert {tensor.fake_mode for tensor in rollout} == {fake}
    assert rollout.outputs.shape == (4, 3, OUTPUT_SIZE)
    assert {tensor.device.type for tensor in rollout} == {device}
