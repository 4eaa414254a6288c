"""From Python values to a model's answers. What an untrained model says is wrong, but must always be the same."""

import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ham.models import AnswerWarning, TaskModel
from lightning_ham.tasks import InstanceError, Lengths, capacity_for, get_task, task_names

SMALL = {"controller_size": 8, "leaf_size": 6}
BUILT_IN = ["add", "merge", "priority_queue", "queue", "reverse", "search", "sort", "stack"]


def make_model(task: str, *, ends: bool = True, **options) -> TaskModel:
    """An untrained model whose outputs differ from instance to instance.

    Args:
        task: Name of the task.
        ends: Whether its bits, the end flag among them, are about as often 1 as 0; else the end flag is never set.
        options: Of the controller.
    """
    torch.manual_seed(0)
    model = TaskModel(task, controller_options=SMALL | options)
    with torch.no_grad():
        memory = model.controller.memory
        memory.embed.blank.normal_()
        for parameter in memory.embed.mlp.parameters():
            parameter *= 3
        outputs = model(model.task.sample(100, (4, 8))).outputs.flatten(0, 1)
        head = model.controller.head
        head.bias -= outputs.mean(0)
        head.weight /= outputs.std(0).unsqueeze(1)
        head.bias /= outputs.std(0)
        if not ends and model.task.predicts_end:
            head.bias[-1] -= 100
    return model.eval()


def instances_of(task: str, lengths: list[tuple[int, int]]) -> list:
    """Random instances, one for each range of lengths."""
    generator = torch.Generator().manual_seed(1)
    instances = []
    for bounds in lengths:
        episodes = get_task(task).sample(1, bounds, generator=generator)
        instances.append(get_task(task).decode_inputs(episodes.inputs[0], episodes.occupied[0]))
    return instances


def mixed(task: str) -> list:
    """Instances of many lengths, several of each capacity, in no order."""
    bounds = [(9, 11), (4, 5), (31, 33), (4, 4), (12, 16), (6, 7), (5, 6), (17, 30), (8, 8), (4, 8), (14, 16)]
    if task != "add":
        bounds += [(2, 2), (3, 3), (2, 3)]
    if get_task(task).min_length == 1:
        bounds += [(1, 1), (1, 1)]
    return instances_of(task, bounds)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("task", BUILT_IN)
def test_no_answer_depends_on_what_is_answered_beside_it_or_in_which_order(task, ends):
    model, instances = make_model(task, ends=ends), mixed(task)
    one_by_one = [model.solve([instance])[0] for instance in instances]
    assert ends or len({str(answer) for answer in one_by_one}) > 1
    assert model.solve(instances) == one_by_one
    assert model.solve(instances[::-1]) == one_by_one[::-1]
    assert model.solve(instances, batch_size=2) == one_by_one


def test_an_answer_ends_where_the_model_says_so_or_with_its_own_timesteps():
    instances = mixed("reverse")
    never_ending = make_model("reverse", ends=False).solve(instances)
    assert [len(answer) for answer in never_ending] == [len(instance) + 1 for instance in instances]
    model = make_model("reverse")
    for instance, answer in zip(instances, model.solve(instances), strict=True):
        ends = [step["output"][-1] for step in model.trace(instance)["steps"]]
        assert len(answer) == (ends.index(1) if 1 in ends else len(ends))


def test_no_instances_no_answers():
    assert make_model("sort").solve([]) == []


def test_arrays_tensors_and_generators_are_instances_and_lists_of_them():
    model = make_model("reverse", ends=False)
    (answer,), trace = model.solve([[7, 1000, 42]]), model.trace([7, 1000, 42])
    for form in (np.array([7, 1000, 42]), torch.tensor([7, 1000, 42]), range(7, 10), (n for n in (7, 1000, 42))):
        expected = model.solve([[7, 8, 9]])[0] if isinstance(form, range) else answer
        assert model.solve([form]) == [expected]
    for instances in (np.array([[7, 1000, 42]] * 2), torch.tensor([[7, 1000, 42]] * 2), ([7, 1000, 42] for _ in "ab")):
        assert model.solve(instances) == [answer] * 2
    assert model.trace(torch.tensor([7, 1000, 42])) == model.trace(map(int, [7, 1000, 42])) == trace


def test_an_instance_alone_a_list_for_a_trace_and_empty_batches_are_refused():
    model = make_model("reverse")
    with pytest.raises(InstanceError, match="Expected a list of instances of reverse, but got one alone"):
        model.solve([7, 1000, 42])
    with pytest.raises(InstanceError, match="Expected one instance of reverse, but got a list of 1"):
        model.trace([[7, 1000, 42]])
    with pytest.raises(ValueError, match="Expected argument `batch_size` to be at least 1, but got 0"):
        model.solve([[7]], batch_size=0)


def test_answers_are_those_of_a_rollout_in_the_smallest_tree():
    model, instances = make_model("sort"), mixed("sort")
    for instance, answer in zip(instances, model.solve(instances), strict=True):
        episodes = model.task.encode([instance], capacity=capacity_for(len(instance)))
        rollout = model(episodes)
        assert answer == model.task.decode(rollout.outputs[0] > 0)


@pytest.mark.parametrize("accesses_per_output", [1, 3])
@pytest.mark.parametrize("task", BUILT_IN)
def test_a_trace_tells_what_the_rollout_did_in_plain_data(task, accesses_per_output):
    model = make_model(task, accesses_per_output=accesses_per_output)
    for instance in mixed(task)[::3]:
        trace = model.trace(instance)
        assert json.loads(json.dumps({**trace, "answer": None})) == {**trace, "answer": None}
        assert trace["answer"] == model.solve([instance])[0]

        length = model.task.instance_length(instance)
        depth = capacity_for(length).bit_length() - 1
        assert trace["num_leaves"] == capacity_for(length)
        steps = trace["steps"]
        assert len(steps) == model.task.timesteps_for(length) * accesses_per_output
        for step in steps:
            assert list(step) == ["leaf", "branch_probabilities", "output"]
            assert len(step["branch_probabilities"]) == depth
            went_right = "".join(str(int(p > 0.5)) for p in step["branch_probabilities"])
            assert step["leaf"] == int(went_right or "0", 2)

        rollout = model(model.task.encode([instance]))
        assert [step["leaf"] for step in steps] == rollout.leaves[0].tolist()
        for step, probabilities in zip(steps, rollout.branch_probs[0].tolist(), strict=True):
            assert step["branch_probabilities"] == pytest.approx(probabilities, rel=1e-5, abs=1e-6)
        bits = (rollout.outputs[0] > 0).int().tolist()
        assert [step["output"] for step in steps] == [symbol for symbol in bits for _ in range(accesses_per_output)]


def test_solve_and_trace_leave_the_model_as_it_is():
    model = make_model("sort")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (instance,) = instances_of("sort", [(5, 5)])
    global_state = torch.get_rng_state()
    model.solve([instance])
    model.trace(instance)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert torch.is_grad_enabled()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    model(model.task.encode([instance])).outputs.sum().backward()


@pytest.mark.parametrize(
    ("task", "good", "bad", "message"),
    [
        ("reverse", [1, 2], [1, 1024], "but got 1024 (number 2)"),
        ("sort", [(1, 2)], [(1, 2), (32, 0)], "but got 32"),
        ("search", ([(1, 2)], 1), ([(1, 2)], 3), "Expected a query that is one of the keys, but got 3"),
        ("merge", ([(0.5, 2)], []), ([(0.5, 2)], [(0.5, 3)]), "Expected priorities that differ"),
        ("add", (1, 2), (1, -2), "but got -2 (second number)"),
    ],
)
def test_a_bad_instance_is_told_before_anything_is_computed(task, good, bad, message):
    model = make_model(task)
    calls = []
    model.controller.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(InstanceError, match=re.escape(message)):
        model.solve([good] * 3 + [bad], batch_size=1)
    with pytest.raises(InstanceError, match=re.escape(message)):
        model.trace(bad)
    assert calls == []
    model.solve([good])
    assert calls == [1]


class Measured(TaskModel):
    """A model of which something was measured."""

    measured = None


def make_measured(task: str, measured: dict, controller: str = "lstm_ham") -> TaskModel:
    options = SMALL if controller == "lstm_ham" else {"leaf_size": 6}
    model = Measured(task, controller, options).eval()
    model.measured = {Lengths.of(lengths): error for lengths, error in measured.items()}
    return model


def warnings_of(function) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    assert all(warning.category is AnswerWarning for warning in caught)
    return [str(warning.message) for warning in caught]


BEYOND = "Got up to {}, but the model was evaluated on up to {} only: nothing is known of its errors beyond."
WRONG = "Got up to {}, but the model was found right on up to {} only: {} of the sequences with up to {} were wrong."


@pytest.mark.parametrize(
    ("task", "measured", "instances", "message"),
    [
        ("reverse", {"1-2": 0.0, "3-4": 0.001}, [[7] * 4], None),
        ("reverse", {"1-2": 0.0, "3-4": 0.001}, [[7], [7] * 9, [7] * 5], BEYOND.format("9 numbers", "4 numbers")),
        ("reverse", {"3-4": 0.5, "1-2": 0.25}, [[7] * 4], None),  # right on no length: nothing new
        ("reverse", {"3-4": 0.5, "1-2": 0.25}, [[7] * 5], BEYOND.format("5 numbers", "4 numbers")),
        ("reverse", {"3-8": 0.5, "1-2": 0.0}, [[7] * 3], WRONG.format("3 numbers", "2 numbers", "50 %", "8 numbers")),
        ("reverse", {}, [[7] * 99], None),
        ("add", {"1-32": 0.0, "33-128": 1e-4}, [(2**63 - 1, 5)], None),
        ("add", {"1-32": 0.0, "33-128": 1e-4}, [(2**63, 5)], BEYOND.format("64 bits", "63 bits")),
        ("add", {"1-32": 0.0, "33-128": 0.75}, [(2**16, 5)], WRONG.format("17 bits", "15 bits", "75 %", "63 bits")),
        ("search", {"1-3": 0.0}, [([(2, 7)] * 2, 2)], None),
        ("search", {"1-3": 0.0}, [([(2, 7)] * 3, 2)], BEYOND.format("3 pairs", "2 pairs")),
    ],
)
def test_it_warns_once_of_what_is_longer_than_was_measured_in_the_users_units(task, measured, instances, message):
    model = make_measured(task, measured)
    expected = [message] if message else []
    assert warnings_of(lambda: model.solve(instances)) == expected
    assert warnings_of(lambda: model.trace(max(instances, key=lambda i: model.task.instance_length(i)))) == expected


def test_it_warns_of_what_is_unlike_all_samples():
    close, wide = ([(0.5, 1)], [(0.5 + 1e-6, 2)]), ([(0.5, 1)], [(0.6, 2)])
    model = make_measured("merge", {"1-32": 0.0})
    assert warnings_of(lambda: model.solve([wide])) == []
    (message,) = warnings_of(lambda: model.solve([wide, close, close]))
    assert message == (
        "Got an instance unlike all that the model was trained and evaluated on: two priorities are 1e-06 apart, and "
        f"those of samples at least {model.task.least_distance:g} (so are 1 more). Its answer may be wrong."
    )
    full = [("push", 7)] * 127 + [("pop",)]
    (message,) = warnings_of(lambda: make_measured("stack", {"1-128": 0.0}, "raw_ham").solve([full]))
    assert "it holds 127 elements at a time in 128 operations, and hardly a sample as many. Its answer" in message


# Building.


@pytest.mark.parametrize("task", BUILT_IN)
def test_the_controller_fits_the_task(task):
    model = make_model(task)
    assert model.task_name == task
    assert model.controller_name == "lstm_ham"
    episodes = model.task.sample(3, (4, 8))
    rollout = model(episodes)
    assert rollout.outputs.shape == episodes.targets.shape


def test_options_are_completed_and_reach_the_controller():
    model = TaskModel("sort", controller_options={"leaf_size": 6, "accesses_per_output": 2})
    assert model.controller_options["leaf_size"] == model.controller.memory.leaf_size == 6
    assert model.controller_options["accesses_per_output"] == model.controller.accesses_per_output == 2
    assert model.controller_options["controller_size"] == model.controller.controller_size == 32
    again = TaskModel("sort", model.controller_name, model.controller_options)
    assert again.controller_options == model.controller_options
    again.load_state_dict(model.state_dict())


def test_number_of_parameters():
    model = TaskModel("sort", controller_options={"controller_size": 2, "leaf_size": 3, "hidden_size": 4})
    embed = (10 * 4 + 4) + (4 * 3 + 3) + 3
    join = (6 * 4 + 4) + (4 * 9 + 9)
    search = (3 * 4 + 4) + 2 * 4 + (4 + 1)
    write = (3 * 6 + 6) + 2 * 6
    lstm = (3 * 8 + 8) + (2 * 8 + 8)
    head = 5 * 11 + 11
    assert model.num_parameters == embed + join + search + write + lstm + head


def test_attention_and_generator_reach_the_controller():
    model = make_model("sort")
    episodes = model.task.sample(8, (8, 8), generator=torch.Generator().manual_seed(2))

    def leaves(*arguments) -> torch.Tensor:
        return model(episodes, *arguments).leaves

    first, again, other = (leaves("reinforce", torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(leaves(), leaves("argmax"))
    with pytest.raises(ValueError, match="Expected argument `attention` to be one of"):
        leaves("hard")


def test_device_is_where_the_parameters_are():
    model = make_model("sort")
    assert model.device == torch.device("cpu")
    assert model.to("meta").device == torch.device("meta")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("srot",), "Unknown task 'srot'; did you mean 'sort'?"),
        (("sort", "lstm_hm"), "Unknown controller 'lstm_hm'; did you mean 'lstm_ham'?"),
        (("sort", "lstm_ham", {"leaf_sise": 4}), "Unknown option 'leaf_sise' of controller 'lstm_ham'"),
        (("sort", "lstm_ham", {"leaf_sise": 4}), "did you mean 'leaf_size'?"),
        (("sort", "lstm_ham", {"leaf_size": 0}), "Expected argument `leaf_size` to be at least 1, but got 0."),
    ],
)
def test_wrong_arguments_are_told_the_nearest_right_one(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TaskModel(*arguments)


# With a controller and a task of somebody else's.

PLUGIN = """
import torch
from lightning_ham.controllers import Rollout
from lightning_ham.tasks.reverse import Reverse

class LastFirst(Reverse):
    name = "last_first"

class Echo(torch.nn.Module):
    '''Puts out the cells, last first, by attending to them one after the other: no learning at all.'''

    def __init__(self, input_size, output_size, gain=1.0):
        super().__init__()
        self.controller_size, self.accesses_per_output = 1, 1
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, inputs, occupied, timesteps, attention="argmax", generator=None):
        batch, leaves, _ = inputs.shape
        depth = leaves.bit_length() - 1
        last_first = occupied.sum(1, keepdim=True) - 1 - torch.arange(timesteps)
        attended = last_first.clamp(min=0)
        cells = inputs.gather(1, attended.unsqueeze(-1).expand(-1, -1, inputs.shape[-1]))
        end = (last_first < 0).float().unsqueeze(-1)
        nothing = torch.zeros(batch, timesteps)
        branches = attended.unsqueeze(-1) >> torch.arange(depth - 1, -1, -1) & 1
        outputs = self.gain * (torch.cat((cells, end), -1) - 0.5)
        return Rollout(outputs, nothing.unsqueeze(-1), nothing, nothing, attended, branches.float())
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "ham_echo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ham_echo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[lightning_ham.controllers]\necho = ham_echo:Echo\n[lightning_ham.tasks]\nlast_first = ham_echo:LastFirst\n"
    )
    (tmp_path / "ham_echo.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ham_echo", raising=False)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("task", ["reverse", "last_first"])
def test_a_plugins_controller_and_task_work_like_our_own(task):
    model = TaskModel(task, "echo", {"gain": 3.0})
    assert model.controller_options == {"gain": 3.0}
    assert model.num_parameters == 1
    instances = mixed("reverse")
    assert model.solve(instances) == [instance[::-1] for instance in instances]
    trace = model.trace([5, 6, 7])
    assert trace["answer"] == [7, 6, 5]
    assert [step["leaf"] for step in trace["steps"]] == [2, 1, 0, 0]
    assert trace["steps"][0]["branch_probabilities"] == [1.0, 0.0]


@pytest.mark.usefixtures("plugin")
def test_a_mistyped_option_of_a_plugins_controller():
    with pytest.raises(ValueError, match=r"Unknown option 'gian' of controller 'echo'; did you mean 'gain'\?"):
        TaskModel("reverse", "echo", {"gian": 3.0})


def test_the_tests_know_every_built_in_task():
    assert task_names() == BUILT_IN
