"""`python -m lightning_ham.evaluate`, from its arguments to what it prints."""

import json
import subprocess
import sys

import pytest
import torch

from lightning_ham import evaluate
from lightning_ham.engines import threads
from lightning_ham.evaluation import evaluate as measure
from lightning_ham.evaluation import table
from lightning_ham.hub import TrainedModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "ham-add"
    TrainedModel("add", controller_options={"controller_size": 6, "leaf_size": 4}).save_pretrained(folder)
    return folder


@pytest.fixture
def run(capsys):
    """Runs the command in this process; returns its status and what it wrote to either stream."""

    def run(*argv):
        try:
            status = evaluate.main([str(word) for word in argv])
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return run


def without_speed(evaluation):
    return evaluation | {"results": [result | {"episodes_per_second": 0} for result in evaluation["results"]]}


def test_json_is_what_the_function_measures(folder, run):
    status, out, _ = run(folder, "--lengths", "1:8", "9-12", "--episodes", "30", "--seed", "5", "--json")
    assert status == 0
    expected = measure(TrainedModel.from_folder(folder), [(1, 8), (9, 12)], 30, seed=5)
    assert without_speed(json.loads(out)) == without_speed(expected)


def test_table_is_printed_by_default(folder, run):
    status, out, err = run("--lengths", "1:8", "--episodes", "30", "--batch_size", "8", "--", folder)
    assert status == 0
    assert out.splitlines()[:2] == table(measure(TrainedModel.from_folder(folder), [(1, 8)], 30, 0)).splitlines()[:2]
    assert out.splitlines()[2].split()[:4] == ["1-8", "8", "30", "30"]
    assert out.splitlines()[0].endswith(
        " parameters, evaluation seed 0. Lengths are numbers of cells: up to 3 bits at 1-8."
    )
    assert len(out.splitlines()) == 3
    assert "\x1b" not in out + err


def test_defaults_are_the_papers():
    arguments = evaluate.make_parser().parse(["model"])
    assert (arguments.lengths, arguments.episodes, arguments.seed) == ([(1, 32), (33, 128)], [2500], 0)


def test_threads_are_set(folder, run, monkeypatch):
    monkeypatch.setattr(threads, "_threads", None)  # and torch's are put back by the call of the next test
    before = torch.get_num_threads()
    try:
        _, printed, _ = run(folder, "--lengths", "4:4", "--episodes", "1", "--threads", "3", "--json")
        assert json.loads(printed)["threads"] == 3
        assert torch.get_num_threads() == 1  # or they would take the cores from the compiled loops
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "error: the following arguments are required: MODEL\n"),
        (["MODEL", "--lenghts", "1:2"], "error: Unknown argument '--lenghts'; did you mean --lengths?\n"),
        (["MODEL", "--episode", "3"], "error: Unknown argument '--episode'; did you mean --episodes?\n"),
        (["MODEL", "--xyz=3"], "error: Unknown argument '--xyz'; see --help.\n"),
        (
            ["MODEL", "--lengths", "12"],
            "error: argument --lengths: Expected lengths LOW-HIGH, such as 1-32, but got '12'\n",
        ),
        (
            ["MODEL", "--episodes", "0"],
            "error: argument --episodes: Expected a whole number of at least 1, but got '0'\n",
        ),
        (["MODEL", "--seed", "x"], "error: argument --seed: invalid int value: 'x'\n"),
        (["runs/no-model"], "but there is no runs/no-model.\n"),
        (["no-model"], "error: Unknown model 'no-model';"),
        (["MODEL", "--lengths", "1:3"], "(min_length 4, then 6 and so on), but got 1-3\n"),
        (["MODEL", "--lengths", "8:4"], "with 1 <= LOW <= HIGH, but got 8-4\n"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(folder, run, argv, message):
    status, out, err = run(*[folder if word == "MODEL" else word for word in argv])
    assert status == 2
    assert out == ""
    *_, error = err.splitlines(keepends=True)
    assert error.startswith("error: ")
    assert message in error


def test_damaged_model_is_one_line_and_status_2(folder, run, tmp_path):
    (tmp_path / "damaged").mkdir()
    for file in folder.iterdir():
        (tmp_path / "damaged" / file.name).write_bytes(file.read_bytes()[:200])
    status, out, err = run(tmp_path / "damaged")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'damaged' / 'config.json'}: Expected JSON in UTF-8, but got: ")
    assert err.count("\n") == 1


def test_as_a_command_it_prints_nothing_but_json_to_standard_output(folder):
    command = [sys.executable, "-m", "lightning_ham.evaluate", folder, "--lengths", "4:8", "--episodes", "9", "--json"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(result.stdout)["results"][0]["episodes"] == 9
    assert result.stderr == f"Loaded {folder} from the folder {folder}\n"
