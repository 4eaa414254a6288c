"""The benchmarks run, count and compare as their pages say."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import peers, report, time_to_solve
from benchmarks.roofline import Sizes, multiply_adds
from lightning_ham.tasks.registry import built_in_tasks

ROOT = Path(__file__).parent.parent
NAMES = ("startup", "onnx_answers", "access", "roofline", "training", "time_to_solve")


QUICK = ("--quick", "--json", "--threads", "1")


@pytest.fixture
def quick(capfd, monkeypatch, restored_threads) -> Callable[..., dict]:
    """Runs a benchmark in this process; returns what it prints, which is also what it writes."""
    for variable in report.THREAD_VARIABLES:  # so that they are restored
        monkeypatch.setenv(variable, "1")

    def run(name: str, folder: Path, *arguments: str) -> dict:
        assert report.run(name, [*QUICK, "--output", str(folder), *arguments]) == 0
        return check(name, folder, capfd.readouterr().out)

    return run


def check(name: str, folder: Path, printed: str) -> dict:
    """The result of a quick run, which has written what it has printed."""
    result = json.loads(printed)
    assert result == json.loads((folder / f"{name}.json").read_text())
    assert (folder / f"{name}.md").read_text() == report.markdown(name, result)
    assert {path.name for path in folder.iterdir()} == {f"{name}.json", f"{name}.md", f"{name}.svg"}
    assert (result["benchmark"], result["quick"], result["threads"]) == (name, True, 1)
    assert result["machine"]["cores"] == os.cpu_count()
    assert result["versions"]["torch"] == torch.__version__
    return result


def test_access_as_a_process(tmp_path):
    command = [sys.executable, "-m", "benchmarks.access", *QUICK, "--output", str(tmp_path), "--exponents", "5", "8"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    result = check("access", tmp_path, finished.stdout)
    assert result["n"] == [32, 64, 128, 256]
    for column in ("access_us", "attention_us", "fused_attention_us"):
        assert len(result[column]) == 4
        assert all(0 < value < 1e6 for value in result[column])
    assert result["fits"]["access_us over log2 n"]["r_squared"] <= 1
    assert [ratio["met"] for ratio in result["ratios"]] == [None] * 3  # there is no 2^20 among these sizes


@pytest.mark.slow
def test_training(tmp_path, quick):
    result = quick("training", tmp_path, "--networks", "reference", "torch_lstm", "--lengths", "4", "--runs", "1")
    assert [(row["engine"], row["n"], row["batch"]) for row in result["rows"]] == [
        ("reference", 4, 4),
        ("torch_lstm", 4, 4),
    ]
    for row in result["rows"]:
        assert row["episodes_per_s"] > 0
        assert row["peak_mb"] >= 0
        assert row["episodes_per_s"] * row["update_s"] == pytest.approx(row["batch"], rel=1e-3)
    assert result["skipped"] == []


@pytest.mark.slow
def test_time_to_solve_is_not_measured_twice(tmp_path, quick):
    result = quick("time_to_solve", tmp_path, "--peers", "torch_lstm")
    assert [(row["network"], row["task"], row["seed"]) for row in result["rows"]] == [
        ("lstm_ham", "reverse", 1),
        ("torch_lstm", "reverse", 1),
    ]
    for row in result["rows"]:
        assert row["solved"]  # the quick bar is 100 %
        assert row["of"] == 64
        assert row["updates"] > 0
    assert quick("time_to_solve", tmp_path, "--peers", "torch_lstm")["rows"] == result["rows"]


def test_time_to_solve_has_the_peers_of_the_paper():
    has_peers = [task.name for task in built_in_tasks() if time_to_solve.peers_for(task.name)]
    assert has_peers == ["reverse", "search", "merge", "sort", "add"]


@pytest.mark.slow
def test_roofline(tmp_path, quick):
    result = quick("roofline", tmp_path, "--engine", "reference", "--lengths", "4")
    (row,) = result["rows"]
    assert sum(row["by_component"].values()) == row["multiply_adds"]
    assert row["limit_s"] == pytest.approx(row["multiply_adds"] / row["multiply_adds_per_s"], rel=1e-3)
    assert row["distance"] == pytest.approx(row["measured_s"] / row["limit_s"], rel=1e-3)
    assert row["distance"] > 1


def test_startup(tmp_path, quick):
    result = quick("startup", tmp_path, "--runs", "1")
    seconds = {row["what"]: row["median"] for row in result["rows"]}
    assert seconds["start Python"] < seconds["import torch"] < 120
    assert [ratio["target"] for ratio in result["ratios"]] == ["at most 1.3"] * 3


def test_quick_run_leaves_the_results_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    for variable in report.THREAD_VARIABLES:
        monkeypatch.setenv(variable, "1")
    assert report.run("access", ["--quick", "--threads", "1", "--runs", "1", "--exponents", "2", "2"]) == 0
    assert not list(tmp_path.iterdir())
    assert "Quick run" in capsys.readouterr().out


def flops(num_leaves: int, timesteps: int, batch: int) -> tuple[int, int]:
    """Multiply-adds of an episode with the engine ``reference``, by PyTorch's counter: forward, and backward."""
    model = peers.make_model("reference", "reverse", num_leaves)
    episodes = model.task.sample(batch, (num_leaves, num_leaves))
    assert episodes.targets.shape[1] == timesteps
    with FlopCounterMode(display=False) as forward:
        outputs = model(episodes, "straight_through").outputs
    with FlopCounterMode(display=False) as backward:
        outputs.sum().backward()
    return forward.get_total_flops() // (2 * batch), backward.get_total_flops() // (2 * batch)


@pytest.mark.parametrize("num_leaves", [2, 8, 32])
def test_multiply_adds_agree_with_the_flop_counter(num_leaves):
    forward, backward = flops(num_leaves, timesteps=num_leaves + 1, batch=3)
    sizes = Sizes(input_size=10, output_size=11)
    as_reference = multiply_adds(sizes, num_leaves, num_leaves + 1, as_reference=True)
    assert sum(count.forward for count in as_reference.values()) == forward
    needed = multiply_adds(sizes, num_leaves, num_leaves + 1)
    assert sum(count.forward for count in needed.values()) < forward
    assert sum(count.backward for count in needed.values()) == pytest.approx(backward, rel=0.05)


@pytest.mark.parametrize("name", ["reference", *peers.COMPARISON_MODELS, *peers.PEERS])
def test_networks_answer_and_learn_in_every_parameter(name):
    torch.manual_seed(0)
    try:
        model = peers.make_model(name, "reverse", 8)
    except peers.Unavailable as error:
        pytest.skip(str(error))
    episodes = model.task.sample(3, (4, 8), capacity=8)
    with peers.training_context(name):
        outputs = model(episodes, "straight_through").outputs
        assert outputs.shape == episodes.targets.shape
        F.binary_cross_entropy_with_logits(outputs, episodes.targets).backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []


def test_sequence_for_recurrent_peers_has_blanks_first_and_the_last_cell_before_the_first_output():
    inputs = torch.tensor([[[1.0], [2.0], [0.0], [0.0]]])
    occupied = torch.tensor([[True, True, False, False]])
    steps = peers.as_sequence(inputs, occupied, timesteps=2)
    assert steps[0].tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0], [2, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_ntm_addresses_are_distributions_that_can_shift():
    torch.manual_seed(0)
    ntm = peers.NeuralTuringMachine(input_size=3, output_size=2, cells=5)
    interface = torch.randn(4, peers.CELL_SIZE + 3 + ntm.SHIFTS)
    weights = ntm._address(torch.randn(4, 5, peers.CELL_SIZE), torch.eye(5)[:4], interface)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4))
    assert (weights > 0).all()
    interface[:, -4:] = torch.tensor([3.0, -50.0, -50.0, 50.0])  # sharpen, and shift by one to the right
    interface[:, -5] = -50.0  # from the last weights, not by content
    shifted = ntm._address(torch.randn(4, 5, peers.CELL_SIZE), torch.eye(5)[:4], interface)
    assert shifted.argmax(dim=1).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", NAMES)
def test_committed_results_are_as_measured(name):
    result = report.read(name, report.RESULTS)
    if result is None:
        pytest.skip("not measured yet")
    assert not result["quick"]
    assert (report.RESULTS / f"{name}.md").read_text() == report.markdown(name, result)
    assert (report.RESULTS / f"{name}.svg").exists()
