"""The comparison models against loops over one episode's cells, timesteps and gates, and as models of our tasks."""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn

from lightning_ham import draw, solve
from lightning_ham.controllers import LSTMHAM, Rollout, complete_options, make_controller
from lightning_ham.controllers.seq2seq import AdditiveAttention, AttentionEncoderDecoder, EncoderDecoder
from lightning_ham.evaluation import evaluate
from lightning_ham.hub import TrainedModel, from_pretrained
from lightning_ham.models import TaskModel
from lightning_ham.pictures.attention import draw_attention
from lightning_ham.tasks import get_task, task_names
from lightning_ham.training import ExplorationOptions, HAMModule, ReinforceOptions, ScheduleOptions, TaskDataModule

INPUT_SIZE, OUTPUT_SIZE, SIZE = 3, 2, 5
CONTROLLERS = {"lstm": EncoderDecoder, "lstm_attention": AttentionEncoderDecoder}
EXACT = {"rtol": 1e-10, "atol": 1e-10}

each_controller = pytest.mark.parametrize("name", CONTROLLERS)


@pytest.fixture
def digits_limit() -> Iterator[None]:
    """Puts back Python's limit on the digits of a number, which ``solve`` lifts."""
    limit = sys.get_int_max_str_digits()
    yield
    sys.set_int_max_str_digits(limit)


def make(name: str, **options) -> nn.Module:
    """A controller in double precision, with weights so large that every cell matters to every output."""
    torch.manual_seed(0)
    model = CONTROLLERS[name](INPUT_SIZE, OUTPUT_SIZE, **({"controller_size": SIZE} | options)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2
    return model


def random_episodes(batch: int, num_leaves: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Occupied cells are anywhere; the last of several episodes has none."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(batch, num_leaves, INPUT_SIZE, generator=generator, dtype=torch.float64)
    occupied = torch.rand(batch, num_leaves, generator=generator) < 0.6
    occupied[0, 0] = True
    if batch > 1:
        occupied[-1] = False
    return inputs, occupied


def outputs_of(model: nn.Module, *arguments) -> Tensor:
    with torch.no_grad():
        return model(*arguments).outputs


# Against a plain loop over one episode.


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def run_lstm(
    weights: dict[str, np.ndarray], suffix: str, xs: list[np.ndarray], h: np.ndarray, c: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """One layer in one direction, gate by gate: the hidden states and the last cell state."""
    states = []
    for x in xs:
        gates = weights[f"weight_ih_{suffix}"] @ x + weights[f"bias_ih_{suffix}"]
        gates = gates + weights[f"weight_hh_{suffix}"] @ h + weights[f"bias_hh_{suffix}"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return states, c


def weights_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in module.state_dict().items()}


def cells_of(inputs: Tensor, occupied: Tensor) -> list[np.ndarray]:
    cells = [cell for cell, holds in zip(inputs.numpy(), occupied.tolist(), strict=True) if holds]
    return cells or [np.zeros(INPUT_SIZE)]


def plain_lstm(model: EncoderDecoder, inputs: Tensor, occupied: Tensor, timesteps: int) -> np.ndarray:
    encoder, decoder = weights_of(model.encoder), weights_of(model.decoder)
    xs, last = cells_of(inputs, occupied), []
    for layer in range(model.encoder.num_layers):
        xs, c = run_lstm(encoder, f"l{layer}", xs, np.zeros(SIZE), np.zeros(SIZE))
        last.append((xs[-1], c))
    ys = [last[-1][0]] * timesteps
    for layer, (h, c) in enumerate(last):
        ys, _ = run_lstm(decoder, f"l{layer}", ys, h, c)
    head = weights_of(model.head)
    return np.stack([head["weight"] @ y + head["bias"] for y in ys])


def plain_attention(
    model: AttentionEncoderDecoder, inputs: Tensor, occupied: Tensor, timesteps: int
) -> tuple[np.ndarray, list[list[float]]]:
    encoder, decoder = weights_of(model.encoder), weights_of(model.decoder)
    layers = model.encoder.num_layers
    xs, zeros = cells_of(inputs, occupied), np.zeros(SIZE)
    for layer in range(layers):
        ahead, _ = run_lstm(encoder, f"l{layer}", xs, zeros, zeros)
        back, _ = run_lstm(encoder, f"l{layer}_reverse", xs[::-1], zeros, zeros)
        xs = [np.concatenate(pair) for pair in zip(ahead, back[::-1], strict=True)]
    start, head, attention = weights_of(model.start), weights_of(model.head), weights_of(model.attention)
    hidden = np.split(np.tanh(start["weight"] @ back[-1] + start["bias"]), layers)
    cells = [zeros] * layers
    outputs, all_weights = [], []
    for _ in range(timesteps):
        scores = [
            (
                attention["score.weight"]
                @ np.tanh(attention["query.weight"] @ hidden[-1] + attention["key.weight"] @ x + attention["key.bias"])
            ).item()
            for x in xs
        ]
        total = sum(math.exp(score) for score in scores)
        weights = [math.exp(score) / total for score in scores]
        context = sum(weight * x for weight, x in zip(weights, xs, strict=True))
        y = context
        for layer in range(layers):
            (y,), cells[layer] = run_lstm(decoder, f"l{layer}", [y], hidden[layer], cells[layer])
            hidden[layer] = y
        outputs.append(head["weight"] @ np.concatenate((y, context)) + head["bias"])
        all_weights.append(weights)
    return np.stack(outputs), all_weights


@pytest.mark.parametrize("num_leaves", [1, 2, 8])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_encoder_decoder_equals_a_plain_loop(num_layers, num_leaves):
    model, episodes = make("lstm", num_layers=num_layers), random_episodes(6, num_leaves)
    expected = np.stack([plain_lstm(model, *episode, 4) for episode in zip(*episodes, strict=True)])
    np.testing.assert_allclose(outputs_of(model, *episodes, 4).numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_leaves", [1, 2, 8])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_attention_equals_a_plain_loop_with_its_weights(num_layers, num_leaves):
    model, (inputs, occupied) = make("lstm_attention", num_layers=num_layers), random_episodes(6, num_leaves)
    seen = []
    model.attention.register_forward_hook(lambda module, arguments, result: seen.append(result[1]))
    outputs = outputs_of(model, inputs, occupied, 4)
    assert len(seen) == 4
    weights = torch.stack(seen, dim=1)  # [batch, timesteps, cells]
    assert weights.shape[2] == max(1, int(occupied.sum(1).max()))
    for episode in range(6):
        expected, expected_weights = plain_attention(model, inputs[episode], occupied[episode], 4)
        np.testing.assert_allclose(outputs[episode].numpy(), expected, rtol=1e-10, atol=1e-10)
        length = len(expected_weights[0])
        np.testing.assert_allclose(weights[episode, :, :length].numpy(), expected_weights, rtol=1e-10, atol=1e-10)
        assert not weights[episode, :, length:].any()
    torch.testing.assert_close(weights.sum(2), torch.ones(6, 4, dtype=torch.float64), **EXACT)


def test_weights_sum_to_one_and_are_zero_where_the_mask_is_false():
    torch.manual_seed(0)
    attention = AdditiveAttention(4, 6, 5).double()
    query, annotations = torch.randn(3, 4).double(), torch.randn(3, 7, 6).double()
    mask = torch.tensor([[1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0], [1] * 7], dtype=torch.bool)
    mean, weights = attention(query, attention.keys(annotations), annotations, mask)
    assert torch.equal(weights > 0, mask)
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(mean, (weights.unsqueeze(-1) * annotations).sum(1), **EXACT)
    torch.testing.assert_close(mean[1], annotations[1, 4], **EXACT)
    others = torch.where(mask.unsqueeze(-1), annotations, 1e3)
    changed, same_weights = attention(query, attention.keys(others), others, mask)
    assert torch.equal(changed, mean)
    assert torch.equal(same_weights, weights)


# What must not matter, and what must.


@each_controller
def test_padding_changes_no_bit_of_the_outputs(name):
    model = make(name, num_layers=2)
    inputs, occupied = random_episodes(6, 8)
    expected = outputs_of(model, inputs, occupied, 4)
    for more in (1, 8, 24):
        padded = torch.cat((inputs, torch.full((6, more, INPUT_SIZE), torch.nan)), dim=1)
        still = torch.cat((occupied, torch.zeros(6, more, dtype=torch.bool)), dim=1)
        assert torch.equal(outputs_of(model, padded, still, 4), expected)


@each_controller
def test_blank_cells_are_passed_over_wherever_they_are(name):
    model = make(name)
    inputs, occupied = random_episodes(6, 8)
    expected = outputs_of(model, inputs, occupied, 4)
    noise = torch.where(occupied.unsqueeze(-1), inputs, torch.inf)
    assert torch.equal(outputs_of(model, noise, occupied, 4), expected)
    first, is_first = torch.zeros_like(inputs), torch.zeros_like(occupied)
    for row in range(6):
        length = int(occupied[row].sum())
        first[row, :length], is_first[row, :length] = inputs[row, occupied[row]], True
    assert not torch.equal(is_first, occupied)
    assert torch.equal(outputs_of(model, first, is_first, 4), expected)


@each_controller
def test_every_cell_and_the_order_of_the_cells_matter(name):
    model = make(name)
    inputs, _ = random_episodes(1, 4)
    occupied = torch.ones(1, 4, dtype=torch.bool)
    expected = outputs_of(model, inputs, occupied, 4)
    assert not torch.allclose(outputs_of(model, inputs.flip(1), occupied, 4), expected, atol=1e-3)
    for cell in range(4):
        without = occupied.clone()
        without[0, cell] = False
        assert not torch.allclose(outputs_of(model, inputs, without, 4), expected, atol=1e-3)


@each_controller
def test_the_order_and_the_size_of_a_batch_do_not_matter(name):
    model = make(name, num_layers=2)
    inputs, occupied = random_episodes(6, 8)
    straight = outputs_of(model, inputs, occupied, 4)
    for order in ([4, 0, 5, 2, 1, 3], [3], [2, 2]):
        torch.testing.assert_close(outputs_of(model, inputs[order], occupied[order], 4), straight[order], **EXACT)


@each_controller
def test_more_timesteps_do_not_change_the_earlier_ones(name):
    model, episodes = make(name, num_layers=2), random_episodes(6, 8)
    long = outputs_of(model, *episodes, 7)
    torch.testing.assert_close(outputs_of(model, *episodes, 3), long[:, :3], **EXACT)
    steps = (long[0, 1:] - long[0, :-1]).abs().amax(1)
    assert (steps > 1e-6).all()  # no output merely repeats the one before


@each_controller
def test_there_are_no_accesses_and_attention_has_no_meaning(name):
    model, episodes = make(name), random_episodes(6, 8)
    before = [tensor.clone() for tensor in episodes]
    global_state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    own_state = generator.get_state()
    rollouts = [model(*episodes, 4, mode, generator) for mode in ("argmax", "reinforce", "straight_through", "soft")]
    assert torch.equal(torch.get_rng_state(), global_state)
    assert torch.equal(generator.get_state(), own_state)
    for rollout in rollouts:
        assert isinstance(rollout, Rollout)
        assert torch.equal(rollout.outputs, model(*episodes, 4).outputs)
        assert [tuple(tensor.shape) for tensor in rollout] == [
            (6, 4, 2),
            (6, 0, SIZE),
            (6, 0),
            (6, 0),
            (6, 0),
            (6, 0, 3),
        ]
        assert rollout.leaves.dtype == torch.long
    for tensor, same in zip(episodes, before, strict=True):
        assert torch.equal(tensor, same)


# Gradients and precision.


@each_controller
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_gradient_reaches_every_parameter(name, num_layers):
    model = make(name, num_layers=num_layers)
    model(*random_episodes(6, 8), 3).outputs.pow(2).sum().backward()
    assert [weight for weight, value in model.named_parameters() if not value.grad.any()] == []


@each_controller
def test_the_gradient_is_that_of_finite_differences(name):
    model, (inputs, occupied) = make(name), random_episodes(3, 4)
    inputs.requires_grad_()
    assert torch.autograd.gradcheck(lambda cells: model(cells, occupied, 2).outputs, (inputs,))
    (gradient,) = torch.autograd.grad(model(inputs, occupied, 2).outputs.sum(), inputs)
    assert torch.equal(gradient.any(dim=2), occupied)


@each_controller
def test_without_gradients_the_outputs_are_the_same(name):
    model, episodes = make(name), random_episodes(6, 8)
    expected = model(*episodes, 4).outputs.detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            torch.testing.assert_close(model(*episodes, 4).outputs, expected, **EXACT)


@each_controller
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.skipif(
    "ONEDNN_MAX_CPU_ISA" in os.environ, reason="PyTorch asks the processor for bfloat16, and oneDNN this setting"
)
def test_runs_in_bfloat16_under_autocast(name, num_layers):
    model = make(name, num_layers=num_layers).float()
    inputs, occupied = random_episodes(6, 8)
    expected = outputs_of(model, inputs.float(), occupied, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(inputs.float(), occupied, 4).outputs
    assert outputs.dtype == torch.bfloat16
    outputs.float().sum().backward()
    assert all(value.grad.isfinite().all() for value in model.parameters())
    error = (outputs.detach().float() - expected).abs().max()
    assert 0 < error < 0.05 * expected.abs().max()


# Options.


@each_controller
def test_every_option_changes_the_outputs(name):
    assert complete_options(name, {}) == {"controller_size": 128, "num_layers": 1}

    def outputs(**options) -> Tensor:
        torch.manual_seed(1)
        controller = make_controller(name, INPUT_SIZE, OUTPUT_SIZE, options)
        inputs, occupied = random_episodes(6, 8)
        return outputs_of(controller, inputs.float(), occupied, 3)

    by_default = outputs()
    assert torch.equal(outputs(controller_size=128, num_layers=1), by_default)
    for options in ({"controller_size": 64}, {"num_layers": 2}):
        assert not torch.allclose(outputs(**options), by_default)


@each_controller
@pytest.mark.parametrize("argument", ["input_size", "output_size", "controller_size", "num_layers"])
def test_sizes_below_one_are_refused(name, argument):
    arguments = {"input_size": 3, "output_size": 2, argument: 0}
    message = f"Expected argument `{argument}` to be at least 1, but got 0."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CONTROLLERS[name](**arguments)


@each_controller
@pytest.mark.parametrize("task", task_names())
def test_it_has_more_parameters_than_our_largest_model_with_a_memory(name, task):
    sizes = get_task(task).input_size, get_task(task).output_size
    largest = LSTMHAM(*sizes, hidden_size=64, accesses_per_output=2)
    assert count(CONTROLLERS[name](*sizes)) > count(largest)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# As the model of a task.


INSTANCES: dict[str, list] = {
    "reverse": [[7, 1000, 42], [5], [1, 2, 3, 4, 5, 6]],
    "search": [([(2, 7), (9, 4), (9, 1)], 9), ([(3, 3)], 3)],
    "merge": [([(0.125, 7), (0.5, 21)], [(0.25, 30)]), ([], [(0.5, 1)])],
    "sort": [[(9, 4), (2, 7), (9, 1)], [(5, 5)], [(1, 2)] * 6],
    "add": [(6, 3), (0, 0), (1000, 7)],
}


def task_model(name: str, task: str, **options) -> TaskModel:
    torch.manual_seed(2)
    return TaskModel(task, name, {"controller_size": 6, **options})


@each_controller
@pytest.mark.parametrize("task", INSTANCES)
def test_solve_answers_what_the_rollout_of_each_alone_says(name, task):
    model, instances = task_model(name, task), INSTANCES[task]
    assert model.accesses_per_output == 0
    assert model.controller_size == 6
    with torch.no_grad():
        alone = [model.task.decode(model(model.task.encode([one])).outputs[0] > 0) for one in instances]
    assert model.solve(instances) == alone
    assert model.solve(instances, batch_size=1) == alone


@each_controller
def test_evaluation_counts_what_it_got_wrong(name):
    model = task_model(name, "sort")
    evaluation = evaluate(model, [(1, 4), (5, 9)], 50, seed=3)
    assert evaluation["controller"] == name
    assert evaluation["num_parameters"] == count(model)
    assert [(result["episodes"], result["wrong_sequences"]) for result in evaluation["results"]] == [(50, 50)] * 2


@pytest.mark.usefixtures("digits_limit")
@each_controller
def test_without_a_memory_there_is_nothing_to_trace_or_draw(name, tmp_path, capsys):
    model = TrainedModel("reverse", name, {"controller_size": 6})
    message = f"Expected a model with a memory to trace, but got the controller '{name}', which has none."
    for ask in (model.trace, lambda instance: draw_attention(model, instance)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            ask([7, 1000, 42])
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "numbers.jsonl").write_text("[7, 1000, 42]\n")
    files = [str(tmp_path / "numbers.jsonl"), "--trace", str(tmp_path / "trace.jsonl")]
    commands: list[tuple[Callable[[list[str]], int], list[str]]] = [(draw.main, []), (solve.main, files)]
    for main, arguments in commands:
        with pytest.raises(SystemExit, match=r"^2$"):
            main([str(tmp_path / "model"), *arguments])
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""
    assert not (tmp_path / "trace.jsonl").exists()


@each_controller
def test_a_saved_model_comes_back_bit_for_bit(name, tmp_path):
    torch.manual_seed(3)
    model = TrainedModel("sort", name, {"controller_size": 6, "num_layers": 2})
    model.save_pretrained(tmp_path / "model", evaluation=evaluate(model, [(1, 4)], 10, seed=0))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["controller"] == name
    assert config["controller_options"] == {"controller_size": 6, "num_layers": 2}
    loaded = from_pretrained(tmp_path / "model")
    assert type(loaded.controller) is CONTROLLERS[name]
    assert loaded.solve(INSTANCES["sort"]) == model.solve(INSTANCES["sort"])
    episodes = model.task.encode(INSTANCES["sort"])
    with torch.no_grad():
        assert torch.equal(loaded(episodes).outputs, model(episodes).outputs)


# Training.


def train(module: HAMModule, capacity: int, epochs: int, batches: int, **options) -> HAMModule:
    data = TaskDataModule(
        "reverse",
        batch_size=128,
        batches_per_epoch=batches,
        capacity=capacity,
        start_capacity=capacity,
        smaller_fraction=0.0,
        validation_lengths=[(1, capacity)],
        validation_episodes=16,
        seed=1,
    )
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, data)
    return module


def reverse_module(name: str, controller_size: int, **options) -> HAMModule:
    pl.seed_everything(1)
    return HAMModule("reverse", name, {"controller_size": controller_size}, **options)


@pytest.mark.parametrize(
    ("name", "controller_size", "capacity", "updates"),
    [
        ("lstm_attention", 48, 4, 250),
        pytest.param("lstm", 128, 2, 700, marks=pytest.mark.slow),
    ],
)
def test_it_learns_to_reverse(name, controller_size, capacity, updates):
    module = reverse_module(name, controller_size, schedule=ScheduleOptions(learning_rate=1e-2))

    def wrong() -> int:
        (result,) = evaluate(module.model, [(1, capacity)], 500, seed=2)["results"]
        return result["wrong_sequences"]

    assert wrong() > 490
    train(module, capacity, epochs=1, batches=updates)
    assert wrong() == 0
    assert module.solve([[7, 1000]]) == [[1000, 7]]


@each_controller
@pytest.mark.parametrize(
    "options",
    [
        {"attention": "soft"},
        {"exploration": ExplorationOptions(entropy_bonus=0.5)},
        {"attention": "reinforce"},
        {"attention": "reinforce", "reinforce": ReinforceOptions(baseline="none")},
    ],
)
def test_it_is_trained_alike_whatever_is_said_of_the_branches(name, options):
    torch.manual_seed(0)
    start = reverse_module(name, 4).model.state_dict()
    plain = train(reverse_module(name, 4), 4, epochs=2, batches=2).model.state_dict()
    other = train(reverse_module(name, 4, **options), 4, epochs=2, batches=2).model.state_dict()
    for weight, value in plain.items():
        assert torch.equal(other[weight], value)
        assert not torch.equal(start[weight], value)


@each_controller
def test_several_rollouts_of_an_episode_are_one(name):
    leave_one_out = ReinforceOptions(baseline="leave_one_out", rollouts=3)
    plain = train(reverse_module(name, 4), 4, epochs=1, batches=3).model.state_dict()
    module = reverse_module(name, 4, attention="reinforce", reinforce=leave_one_out)
    other = train(module, 4, epochs=1, batches=3).model.state_dict()
    for weight, value in plain.items():
        torch.testing.assert_close(other[weight], value, rtol=1e-3, atol=1e-5)


@each_controller
def test_a_recipe_names_it_and_sets_its_options(name, fit, tmp_path):
    recipe = {
        "task": "reverse",
        "model": {"controller": name, "controller_options": {"controller_size": 6, "num_layers": 2}},
        "data": {"batch_size": 8, "batches_per_epoch": 2, "capacity": 4, "validation_lengths": [[1, 4]]},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "evaluation": {"lengths": [[1, 4]], "episodes": 20},
    }
    (tmp_path / "rival.yaml").write_text(yaml.safe_dump(recipe))
    done = fit(tmp_path, "rival.yaml")
    assert done.returncode == 0, done.stderr
    model = from_pretrained(tmp_path / "runs" / "rival")
    assert model.controller_name == name
    assert model.controller_options == {"controller_size": 6, "num_layers": 2}
    evaluation = json.loads((tmp_path / "runs" / "rival" / "evaluation.json").read_text())
    assert (evaluation["controller"], evaluation["num_parameters"]) == (name, model.num_parameters)

    refused = fit(tmp_path, "rival.yaml", "--model.controller_options", '{"leaf_size": 4}')
    assert refused.returncode == 2
    assert f"Unknown option 'leaf_size' of controller '{name}'" in refused.stderr
