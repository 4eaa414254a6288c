"""``python -m lightning_ham.fit`` as its users see it: its output, its files, and how it resumes."""

import csv
import hashlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image

from lightning_ham import from_pretrained
from lightning_ham.evaluation import evaluate
from lightning_ham.pictures.png import drawn_from
from lightning_ham.runs import train
from lightning_ham.runs.learning_curve import read_curve
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.training import EpisodeCounter, HAMModule

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "lightning_ham.fit"]


def checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def rows(run: Path) -> list[dict[str, str]]:
    """What was logged, a row for every epoch."""
    with (run / "metrics" / "version_0" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def logged(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(run) if row.get(name)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_recipe, environment) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with a run of the tiny recipe, and the printed output."""
    folder = tmp_path_factory.mktemp("trained")
    command = [*COMMAND, tiny_recipe]
    return folder, subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(trained) -> Path:
    folder, done = trained
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "tiny"


# The run folder.


def test_files_of_the_run_folder(run):
    assert {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} == {
        "recipe.yaml",
        "training.json",
        "evaluation.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "metrics/version_0/metrics.csv",
        "metrics/version_0/hparams.yaml",
        "model/README.md",
        "model/attention.png",
        "model/config.json",
        "model/learning_curve.png",
        "model/model.safetensors",
    }


def without_speed(evaluation: dict[str, Any]) -> dict[str, Any]:
    results = [{**result, "episodes_per_second": None} for result in evaluation["results"]]
    return {**evaluation, "results": results, "threads": None, "weights_sha256": None}


def test_evaluation_is_what_evaluating_the_exported_model_gives(run):
    written = json.loads((run / "evaluation.json").read_text())
    again = evaluate(from_pretrained(run / "model"), [(2, 8), (9, 16)], 50, seed=0)
    assert without_speed(written) == without_speed(again)
    assert [result["episodes"] for result in written["results"]] == [50, 50]


def test_evaluation_names_the_file_of_weights_that_was_measured(run):
    written = json.loads((run / "evaluation.json").read_text())
    assert written["weights_sha256"] == hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_best_is_exported_and_last_is_the_end(run):
    scores = logged(run, "val/score")
    best, last = (checkpoint(run / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    assert scores[best["epoch"]] == min(scores)
    assert (last["epoch"], last["global_step"]) == (2, 12)
    exported = safetensors.torch.load_file(run / "model" / "model.safetensors")
    assert {f"model.{name}" for name in exported} == best["state_dict"].keys()
    assert all(torch.equal(value, best["state_dict"][f"model.{name}"]) for name, value in exported.items())


@pytest.mark.parametrize(("scores", "best"), [((0.1, 0.2, 0.3), 0), ((0.2, 0.1, 0.1), 2), ((0.2, 0.1, 0.3), 1)])
def test_last_is_the_end_wherever_the_best_is(tmp_path, tiny_recipe, scores, best):
    class Scored(HAMModule):
        def on_validation_epoch_end(self):
            self.log("val/score", scores[self.current_epoch])

    cli = RecipeCLI(tiny_recipe, [])
    trainer = train._make_trainer(cli, tmp_path, [EpisodeCounter()])
    trainer.fit(Scored(**cli.model.hparams), cli.datamodule)
    assert checkpoint(tmp_path / "checkpoints" / "best.ckpt")["epoch"] == best
    assert checkpoint(tmp_path / "checkpoints" / "last.ckpt")["epoch"] == 2


def test_weights_in_checkpoints_are_the_average(run):
    last = checkpoint(run / "checkpoints" / "last.ckpt")
    name = "model.controller.head.weight"
    assert not torch.equal(last["state_dict"][name], last["current_model_state"][name])


def test_metrics(run):
    for name in ("val/score", "val/current/sequence_error", "train/nll", "train/loss", "curriculum/capacity"):
        assert len(logged(run, name)) == 3
    assert logged(run, "curriculum/capacity")[0] == 2
    assert logged(run, "curriculum/capacity")[-1] > 2
    assert logged(run, "train/episodes") == [64, 128, 192]
    (rate,) = (name for name in rows(run)[0] if name.startswith("lr-"))
    assert logged(run, rate)[0] == pytest.approx(0.03)


def test_training_is_described(run, trained):
    training = json.loads((run / "training.json").read_text())
    assert training["recipe"] == "tiny"
    assert re.fullmatch(r"python -m lightning_ham\.fit \S+/tiny\.yaml", training["command"])
    assert (training["seed"], training["updates"], training["episodes"]) == (3, 12, 192)
    assert training["hyper_parameters"]["data"]["batch_size"] == 16
    assert training["wandb_url"] is None
    assert training["versions"]["torch"] == torch.__version__
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (training["commit"] or "").removesuffix("-dirty") == commit.stdout.strip()
    assert training["command"] in (run / "model" / "README.md").read_text()


def test_learning_curve_has_every_validation(run):
    curve = json.loads((run / "training.json").read_text())["curve"]
    assert [point["update"] for point in curve] == [4, 8, 12]
    assert [point["episodes"] for point in curve] == logged(run, "train/episodes")
    assert [point["capacity"] for point in curve] == logged(run, "curriculum/capacity")
    for set_name in ("current", "2-8", "9-16"):
        errors = [point["errors"][set_name] for point in curve if set_name in point["errors"]]
        assert errors == pytest.approx(logged(run, f"val/{set_name}/sequence_error"), abs=1e-6)
    assert "2-8" not in curve[0]["errors"], "the curriculum is not at its end"


def test_card_shows_the_pictures(run):
    card = (run / "model" / "README.md").read_text()
    curve = json.loads((run / "training.json").read_text())["curve"]
    for name in ("learning_curve.png", "attention.png"):
        assert f"]({name})" in card
    with Image.open(run / "model" / "learning_curve.png") as picture:
        assert picture.info["Description"] == drawn_from(curve)


def test_recipe_is_resolved(run):
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert recipe["data"]["batch_size"] == 16  # from the recipe
    assert recipe["data"]["smaller_fraction"] == 0.2  # from the defaults
    assert recipe["run_dir"] == "runs/tiny"


def test_an_epoch_that_was_trained_twice_counts_as_the_second_time(tmp_path):
    header = "epoch,step,curriculum/capacity,train/episodes,train/seconds,val/current/sequence_error,val/1-2/x"
    parts = [["0,3,,,,0.5,", "0,3,2,64,1.4,,", "1,7,,,,0.4,"], ["1,7,,,,0.3,", "1,7,4,128,3.2,,", "2,9,4,160,4.0,,"]]
    for number, part in enumerate(parts):
        (tmp_path / "metrics" / f"version_{number}").mkdir(parents=True)
        (tmp_path / "metrics" / f"version_{number}" / "metrics.csv").write_text("\n".join([header, *part]) + "\n")
    assert read_curve(tmp_path) == [
        {"update": 4, "episodes": 64, "seconds": 1, "capacity": 2, "errors": {"current": 0.5}},
        {"update": 8, "episodes": 128, "seconds": 3, "capacity": 4, "errors": {"current": 0.3}},
    ]


# What it prints.

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")  # all but the end of a line


def test_output_through_a_pipe(trained):
    _, done = trained
    assert not CONTROL.search(done.stdout + done.stderr)
    lines = done.stdout.splitlines()
    assert [line[:9] for line in lines[:3]] == [f"epoch {epoch}/3" for epoch in (1, 2, 3)]
    for line in lines[:3]:
        assert re.fullmatch(r"epoch \d/3  leaves \d+  nll \d+\.\d+  wrong \d+\.\d\d%  episodes/s \d+.*", line)
    assert re.match(r"search with lstm_ham, [\d,]+ parameters, evaluation seed 0", lines[3])
    assert [line.split()[0] for line in lines[4:]] == ["lengths", "2-8", "9-16"]
    assert re.fullmatch(
        r"Training search, \d+ parameters, in runs/tiny\nTrained in \d+ s\. The model is in runs/tiny/model\n"
        r"Next: python -m lightning_ham\.solve runs/tiny FILE, python -m lightning_ham\.draw runs/tiny -o \S+\.svg, "
        r"or python -m lightning_ham\.evaluate runs/tiny\n",
        done.stderr,
    )


@pytest.mark.slow
def test_output_in_a_terminal(tmp_path, tiny_recipe, environment):
    """A bar and the numbers that matter, in two lines that stay where they are and fit into the terminal."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, tiny_recipe, "--trainer.max_epochs", "2"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment | {"COLUMNS": "80", "TERM": "xterm"}, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                output += os.read(ours, 4096)
            except OSError:  # how Linux tells that the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0
    bar, table = output.decode().split("search with lstm_ham")
    assert max(up.count("\x1b[1A") for up in re.findall(r"(?:\x1b\[2K|\x1b\[1A)+", bar)) == 1
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", bar.replace("\r\n", "\n")).splitlines()
    assert max(map(len, shown)) <= 80
    assert {line[:9] for line in shown if line.startswith("epoch")} == {"epoch 1/2", "epoch 2/2"}  # as in lines
    assert any(re.fullmatch(r"leaves 2  nll \d\.\d+  wrong \d+\.\d\d%  episodes/s \d+", line) for line in shown)
    assert "9-16" in table


def test_help(fit, tmp_path):
    for arguments in (["--help"], []):
        done = fit(tmp_path, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Shipped recipes: add, merge, priority_queue, queue, reverse, search, sort, stack" in done.stdout
    for expected in (
        "usage: python -m lightning_ham.fit RECIPE [--dotted.override value ...]",
        "--data.batch_size",
        "Episodes per batch and device.",
        "--stop.patience",
        "Project that the run belongs to.",  # the options of dataclasses are documented, too
        "Fresh episodes for each range;",
        "--trainer.max_epochs",
    ):
        assert expected in done.stdout
    assert not re.search(r"``|:\w+:`", done.stdout)  # no markup
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert not list(tmp_path.iterdir())


def test_help_after_a_recipe(fit, tmp_path, tiny_recipe):
    done = fit(tmp_path, tiny_recipe, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--data.batch_size" in done.stdout
    assert not list(tmp_path.iterdir())


def test_printed_config_is_a_recipe_that_trains_the_same_again(fit, tmp_path, tiny_recipe):
    done = fit(tmp_path, tiny_recipe, "--data.batch_size", "8", "--trainer.gradient_clip_val", "null", "--print_config")
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())
    (tmp_path / "printed.yaml").write_text(done.stdout)
    printed = yaml.safe_load(done.stdout)
    assert printed["data"]["batch_size"] == 8
    assert printed["trainer"]["gradient_clip_val"] is None

    options = ["--data.batch_size", "8", "--trainer.gradient_clip_val", "null"]
    assert fit(tmp_path, "printed.yaml").returncode == fit(tmp_path, tiny_recipe, *options).returncode == 0
    assert same_training(tmp_path / "runs" / "printed", tmp_path / "runs" / "tiny")
    # What a run folder holds is such a recipe as well; its run folder is taken.
    assert fit(tmp_path, "runs/tiny/recipe.yaml", "--run_dir", "again").returncode == 0
    assert same_training(tmp_path / "again", tmp_path / "runs" / "tiny")
    recipe = yaml.safe_load((tmp_path / "again" / "recipe.yaml").read_text())
    assert recipe["trainer"]["gradient_clip_val"] is None


def same_training(first: Path, second: Path) -> bool:
    """Whether two runs ended at the same weights, moments, rates, levels and counts, bit for bit."""
    one, other = (checkpoint(run / "checkpoints" / "last.ckpt") for run in (first, second))
    for counts in (one["callbacks"]["EpisodeCounter"], other["callbacks"]["EpisodeCounter"]):
        counts.pop("seconds")
    keys = ("epoch", "global_step", "state_dict", "current_model_state", "averaging_state", "optimizer_states")
    keys += ("lr_schedulers", "callbacks")
    exported = ((run / "model" / "model.safetensors").read_bytes() for run in (first, second))
    return all(equal(one[key], other[key]) for key in keys) and next(exported) == next(exported)


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second


# Resuming. The curriculum rises in the first epochs, so that its level is part of what must be restored.

LONG = ["--data.capacity", "16", "--trainer.max_epochs", "12", "--data.num_workers", "0"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_recipe, fit) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert fit(folder, tiny_recipe, *LONG).returncode == 0
    run = folder / "runs" / "tiny"
    assert logged(run, "curriculum/capacity")[:2] == [2, 4]
    assert logged(run, "curriculum/capacity")[-1] == 16
    return run


def wait_for(condition: Callable[[], bool], is_running: Callable[[], bool] = lambda: True) -> None:
    while not condition():
        assert is_running(), "the training ended too soon"
        time.sleep(0.01)


def epoch_of(path: Path) -> int:
    """How many epochs a checkpoint has behind it; -1 if there is none yet."""
    if not path.exists():
        return -1
    state = checkpoint(path)
    return state["epoch"] + 1 if state["global_step"] else 0


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_if_it_had_not_been(tmp_path, tiny_recipe, fit, uninterrupted):
    last = tmp_path / "runs" / "tiny" / "checkpoints" / "last.ckpt"
    reached = []
    for epochs, resume in ((0, []), (2, ["--ckpt_path", "last"]), (6, ["--ckpt_path", "last"])):
        process = fit.start(tmp_path, tiny_recipe, *LONG, *resume)
        wait_for(lambda epochs=epochs: epoch_of(last) >= epochs, lambda process=process: fit.is_running(process))
        os.kill(process, signal.SIGKILL)
        assert fit.wait().returncode == -signal.SIGKILL
        reached.append(epoch_of(last))
    assert reached == sorted(reached)
    assert reached[-1] < 12
    done = fit(tmp_path, tiny_recipe, *LONG, "--ckpt_path", "last")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"epoch {reached[-1] + 1}/12 ")
    assert same_training(tmp_path / "runs" / "tiny", uninterrupted)
    names = [path.name for path in tmp_path.glob("runs/*")]
    assert names == ["tiny"]


@pytest.mark.slow
def test_interrupted_it_says_how_to_resume_and_that_works(tmp_path, tiny_recipe, environment, fit, uninterrupted):
    """As Ctrl-C does it: the signal reaches every process of the group."""
    last = tmp_path / "runs" / "tiny" / "checkpoints" / "last.ckpt"
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [*COMMAND, tiny_recipe, *LONG],
            cwd=tmp_path,
            env=environment | {"WANDB_MODE": "offline"},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            # Where the tests themselves run in the background, Ctrl-C is ignored, and processes inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        wait_for(lambda: epoch_of(last) >= 3, lambda: process.poll() is None)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 130
    lines = (tmp_path / "stderr").read_text().splitlines()
    assert "Traceback" not in "\n".join(lines)
    synced, said = lines[-2:]
    assert synced.startswith("To see the run in W&B: wandb sync runs/tiny/wandb/offline-run-")
    resume = said.removeprefix("Interrupted. Resume with: ")
    assert resume == "python -m lightning_ham.fit runs/tiny/recipe.yaml --ckpt_path last"
    assert epoch_of(last) < 12

    done = fit(tmp_path, *shlex.split(resume)[3:])
    assert done.returncode == 0, done.stderr
    assert same_training(tmp_path / "runs" / "tiny", uninterrupted)
    training = json.loads((tmp_path / "runs" / "tiny" / "training.json").read_text())
    assert training["recipe"] == "tiny"  # not "recipe", the name of the file that it was resumed with
    assert training["command"].endswith(f" --data.num_workers 0 && {resume}")


@pytest.fixture
def folder(tmp_path, run) -> Path:
    """A folder of its own in which the tiny recipe was trained."""
    shutil.copytree(run, tmp_path / "runs" / "tiny")
    return tmp_path


def test_while_a_finished_run_goes_on_it_has_no_evaluation(folder, tiny_recipe, fit):
    run = folder / "runs" / "tiny"
    last, before = run / "checkpoints" / "last.ckpt", epoch_of(run / "checkpoints" / "last.ckpt")
    assert (run / "evaluation.json").is_file()
    process = fit.start(folder, tiny_recipe, "--ckpt_path", "last", "--trainer.max_epochs", "100000")
    wait_for(lambda: epoch_of(last) > before, lambda: fit.is_running(process))
    os.kill(process, signal.SIGKILL)
    fit.wait()
    assert not (run / "evaluation.json").exists()


def test_a_finished_run_goes_on_for_more_epochs(folder, tiny_recipe, fit):
    done = fit(folder, tiny_recipe, "--ckpt_path", "last", "--trainer.max_epochs", "5")
    assert done.returncode == 0
    assert re.findall(r"^epoch (\d)/5", done.stdout, re.MULTILINE) == ["4", "5"]
    assert checkpoint(folder / "runs" / "tiny" / "checkpoints" / "last.ckpt")["global_step"] == 20
    training = json.loads((folder / "runs" / "tiny" / "training.json").read_text())
    assert training["episodes"] == 5 * 4 * 16
    assert [point["update"] for point in training["curve"]] == [4, 8, 12, 16, 20], "over both parts of the run"
    # With no epoch left, it is evaluated and exported again.
    done = fit(folder, "runs/tiny/recipe.yaml", "--ckpt_path", "last", "--evaluation.episodes", "20")
    assert done.returncode == 0
    assert json.loads((folder / "runs" / "tiny" / "evaluation.json").read_text())["results"][0]["episodes"] == 20


def test_last_is_the_newest_run_of_the_recipe(folder, tiny_recipe, fit):
    for name, age in {"tiny": 3, "tiny-2": 1, "tiny-3": 2, "another": 0}.items():
        run = folder / "runs" / name
        if not run.exists():
            shutil.copytree(folder / "runs" / "tiny", run)
        os.utime(run / "checkpoints" / "last.ckpt", (time.time() - 100 * age,) * 2)
    for arguments, expected in (([], "tiny-2"), (["--run_dir", "runs/tiny-3"], "tiny-3")):
        done = fit(folder, tiny_recipe, "--ckpt_path", "last", "--trainer.max_epochs", "3", *arguments)
        assert done.returncode == 0
        assert re.match(rf"Resuming search, \d+ parameters, in runs/{expected}\n", done.stderr)


def test_a_new_run_takes_a_free_name(folder, tiny_recipe, fit):
    (folder / "runs" / "tiny-2").mkdir()
    done = fit(folder, tiny_recipe, "--trainer.max_epochs", "1")
    assert "in runs/tiny-3\n" in done.stderr
    assert json.loads((folder / "runs" / "tiny-3" / "training.json").read_text())["updates"] == 4


def test_a_checkpoint_by_its_path(folder, tiny_recipe, fit):
    done = fit(folder, tiny_recipe, "--ckpt_path", "runs/tiny/checkpoints/last.ckpt", "--trainer.max_epochs", "4")
    assert done.returncode == 0
    assert "in runs/tiny\n" in done.stderr
    assert done.stdout.startswith("epoch 4/4")
    # One that lies elsewhere begins a run of its own, even if there is nothing left to train.
    shutil.copy(folder / "runs" / "tiny" / "checkpoints" / "last.ckpt", folder / "mine.ckpt")
    done = fit(folder, tiny_recipe, "--ckpt_path", "mine.ckpt", "--trainer.max_epochs", "4")
    assert done.returncode == 0
    assert "in runs/tiny-2\n" in done.stderr
    assert "epoch" not in done.stdout
    assert (folder / "runs" / "tiny-2" / "model" / "config.json").exists()


# Wrong input: one line, status 2, and nothing left behind.

UNKNOWN = "in the recipe or on the command line; did you mean"


WRONG = [
    ({}, ["--data.bach_size", "3"], f"Unknown key 'data.bach_size' {UNKNOWN} 'data.batch_size'?"),
    ({}, ["--batch_size", "3"], f"Unknown key 'batch_size' {UNKNOWN} 'data.batch_size'?"),
    ({}, ["--trainer.max_epoch", "3"], f"Unknown key 'trainer.max_epoch' {UNKNOWN} 'trainer.max_epochs'?"),
    ({}, ["--model.task", "sort"], 'Linked "model.task" must be given via "task".'),
    (
        {},
        ["--trainer.logger", "false"],
        "Expected key 'trainer.logger' to be a logger by its `class_path` and `init_args`, or a list of them, but got ",
    ),
    ({"trainer": {"fast_dev_run": True}}, [], "Key 'trainer.fast_dev_run' cannot be set in a recipe: it leaves no "),
    ({"model": {"seed": 3}}, [], f"Unknown key 'model.seed' {UNKNOWN} 'seed_everything'?"),
    ({"data": {"bach_size": 3}}, [], f"Unknown key 'data.bach_size' {UNKNOWN} 'data.batch_size'?"),
    ({"dta": {}}, [], f"Unknown key 'dta' {UNKNOWN} 'data'?"),
    ({"model": {"task": "sort"}}, [], f"Unknown key 'model.task' {UNKNOWN} 'task'?"),
    (
        {"model": {"attention": "reinforce", "reinforce": {"discont": 0.5}}},
        [],
        f"Unknown key 'model.reinforce.discont' {UNKNOWN} 'model.reinforce.discount'?",
    ),
    ({"data": 3}, [], "Expected key 'data' to hold keys of its own, but got 3."),
    ({}, ["--data.batch_size", "x"], "Expected key 'data.batch_size' to be an integer, but got 'x'."),
    ({"data": {"capacity": 1.5}}, [], "Expected key 'data.capacity' to be an integer, but got '1.5'."),
    ({}, ["--data.batch_size", "0"], "Expected key 'data.batch_size' to be at least 1, but got 0."),
    (
        {},
        ["--model.attention", "hard"],
        "Expected key 'model.attention' to be one of 'reinforce', 'straight_through', 'straight_through_write', "
        "'soft', but got 'hard'.",
    ),
    (
        {},
        ["--trainer.max_epochs", "many"],
        "Expected key 'trainer.max_epochs' to be an integer or null, but got 'many'.",
    ),
    ({}, ["--task", "serch"], "key 'task': Unknown task 'serch'; did you mean 'search'?"),
    ({}, ["--model.controller", "lstm_hm"], "Unknown controller 'lstm_hm'; did you mean 'lstm_ham'?"),
    (
        {},
        ["--model.controller_options.leaf_sise", "3"],
        "Unknown option 'leaf_sise' of controller 'lstm_ham'; did you mean 'leaf_size'?",
    ),
    (
        {},
        ["--model.controller_options.leaf_size", "x"],
        "Expected key 'model.controller_options.leaf_size' to be an integer, but got 'x'.",
    ),
    (
        {},
        ["--model.controller_options.hidden_size", "x"],
        "Expected key 'model.controller_options.hidden_size' to be an integer, but got 'x'.",
    ),
    (
        {},
        ["--model.engine", "steam"],
        "Expected key 'model.engine' to be one of 'auto', 'reference', 'sparse', 'fused', but got 'steam'.",
    ),
    ({}, ["--threads", "0"], "Expected key 'threads' to be at least 1, but got 0."),
    ({}, ["--weight_average", "1"], "Expected key 'weight_average' to be at least 0 and below 1, but got 1.0."),
    ({}, ["--evaluation.episodes", "0"], "Expected key 'evaluation.episodes' to be at least 1, but got 0."),
    (
        {},
        ["--evaluation.episodes", "[1, 2, 3]"],
        "Expected key 'evaluation.episodes' to be one number or one for each range of lengths (2), but got 3.",
    ),
    (
        {},
        ["--evaluation.lengths", "[[4, 2]]"],
        "Key 'evaluation.lengths': Expected lengths LOW-HIGH with 1 <= LOW <= HIGH, but got 4-2",
    ),
    (
        {},
        ["--evaluation.lengths", "[4]"],
        "Key 'evaluation.lengths': Expected lengths LOW-HIGH, such as 1-32, but got 4.",
    ),
    (
        {},
        ["--data.validation_lengths", "[2-8, to 16]"],
        "Key 'data.validation_lengths': Expected lengths LOW-HIGH, such as 1-32, but got 'to 16'",
    ),
    (
        {},
        ["--stop.errors", "{2-9: 0.1}"],
        "Expected key 'stop.errors' to name validation sets (2-8, 9-16), but got '2-9'.",
    ),
    ({}, ["--trainer.accelerator", "abacus"], "You selected an invalid accelerator name"),
    ({}, ["extra"], "unrecognized arguments: extra"),
    ({}, ["--ckpt_path", "last"], "Expected a run to resume, but runs/wrong/checkpoints/last.ckpt does not exist."),
    ({}, ["--ckpt_path", "no.ckpt"], "Expected a checkpoint or 'last' for --ckpt_path, but got no.ckpt."),
    ({}, ["--run_dir", "wrong.yaml"], "Expected a folder for --run_dir, but wrong.yaml is a file."),
    ({}, ["--ckpt_path", "wrong.yaml"], "wrong.yaml: Expected a whole checkpoint, but got a damaged file"),
]


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    WRONG,
    ids=[" ".join(arguments) or str(change) for change, arguments, _ in WRONG],
)
def test_wrong_input(fit, tmp_path, tiny_recipe, change, arguments, expected):
    recipe = yaml.safe_load(tiny_recipe.read_text())
    for key, value in change.items():
        recipe[key] = {**recipe[key], **value} if key in recipe and isinstance(value, dict) else value
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(recipe))
    check_refusal(fit(tmp_path, "wrong.yaml", *arguments), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.yaml"]


def check_refusal(done, expected):
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {expected}")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["mrge"],
            "Expected a recipe, but got 'mrge', which is neither a file nor a shipped recipe; did you mean 'merge'?",
        ),
        (
            ["recipes/srot.yaml"],
            "Expected a recipe, but got 'recipes/srot.yaml', which is neither a file nor a shipped",
        ),
        (["."], "Expected a recipe, but got '.', which is neither a file nor a shipped recipe; shipped: add, merge,"),
        (["--data.batch_size", "3"], "Expected a recipe first and options after it, but got '--data.batch_size'."),
    ],
)
def test_missing_recipe(fit, tmp_path, arguments, expected):
    done = fit(tmp_path, *arguments)
    check_refusal(done, expected)
    if "srot" in arguments[0]:
        assert "did you mean 'sort'?" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Expected broken.yaml to hold keys and values, but got None."),
        (b"- 1\n- 2\n", "Expected broken.yaml to hold keys and values, but got [1, 2]."),
        (b"task: [1,\ndata: 2\n", "Expected broken.yaml to be YAML, but got: "),
        (b"\xff\xfe\x00", "Expected broken.yaml to be YAML, but got: "),
        (b"threads: 1\n", ""),
    ],
    ids=["empty", "list", "syntax", "binary", "no-task"],
)
def test_broken_recipe(fit, tmp_path, content, expected):
    (tmp_path / "broken.yaml").write_bytes(content)
    check_refusal(fit(tmp_path, "broken.yaml"), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.yaml"]


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_a_run_is_not_overwritten(fit, run, tiny_recipe):
    before = snapshot(run)
    folder = run.parent.parent
    done = fit(folder, tiny_recipe, "--run_dir", "runs/tiny")
    check_refusal(done, "Expected a new run folder, but runs/tiny holds a run; resume it with --ckpt_path last, or ")
    for other, difference in (("--task", "sort"), ("--model.controller_options.leaf_size", "9")):
        done = fit(folder, tiny_recipe, "--ckpt_path", "last", other, difference)
        check_refusal(done, "Expected a checkpoint of the recipe's model, but runs/tiny/checkpoints/last.ckpt holds")
    assert snapshot(run) == before


def test_an_unexpected_error_keeps_its_traceback(fit, tmp_path, tiny_recipe):
    """Only what a user got wrong is told in one line."""
    (tmp_path / "broken_callback.py").write_text(
        "from pytorch_lightning import Callback\n"
        "class Broken(Callback):\n"
        "    def on_train_start(self, trainer, pl_module):\n"
        "        raise ValueError('broken')\n"
    )
    done = fit(tmp_path, tiny_recipe, "--trainer.callbacks+=broken_callback.Broken", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


# The rest.


def test_a_shipped_recipe_by_its_name(fit, tmp_path):
    small = ["--model.controller_options", "{controller_size: 4, leaf_size: 4}", "--data.batch_size", "4"]
    small += ["--data.batches_per_epoch", "1", "--data.validation_episodes", "4", "--trainer.max_epochs", "1"]
    done = fit(tmp_path, "reverse", *small, "--evaluation.episodes", "10")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "reverse" / "model" / "config.json").exists()


def test_callbacks_of_the_recipe_are_used(fit, tmp_path, tiny_recipe):
    recipe = yaml.safe_load(tiny_recipe.read_text())
    extra = {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {"dirpath": "extra"}}
    recipe["trainer"] |= {"callbacks": [extra], "max_epochs": 1}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(recipe))
    assert fit(tmp_path, "own.yaml").returncode == 0
    assert list((tmp_path / "extra").glob("*.ckpt"))


def test_without_validation_the_last_weights_are_exported(fit, tmp_path, tiny_recipe):
    done = fit(tmp_path, tiny_recipe, "--trainer.limit_val_batches", "0")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tiny"
    last = checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    exported = safetensors.torch.load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(value, last[f"model.{name}"]) for name, value in exported.items())


def test_it_ends_when_the_bar_is_met(fit, tmp_path, tiny_recipe):
    done = fit(tmp_path, tiny_recipe, "--stop.errors", "{2-8: 1.0}", "--trainer.max_epochs", "20")
    assert done.returncode == 0
    assert "The bar is met (at most 100.00% at lengths 2-8 wrong): training ends.\n" in done.stderr
    assert done.stdout.count("epoch ") < 20


def test_a_missed_bar_is_said_with_what_to_try(fit, tmp_path, tiny_recipe):
    options = ["--stop.errors", "{2-8: 0.002, 9-16: 1.0}", "--trainer.max_epochs", "1", "--run_dir", "my runs/a"]
    done = fit(tmp_path, tiny_recipe, *options)
    assert done.returncode == 0
    (error,) = re.findall(r"^ +2-8 .* ([\d.]+ %) +\d.* to", done.stdout, re.MULTILINE)
    resume = "python -m lightning_ham.fit 'my runs/a/recipe.yaml' --ckpt_path last --trainer.max_epochs=2"
    said = (
        f"The bar is missed: {error} wrong at lengths 2-8 (at most 0.2 %). Try another seed (--seed_everything 4), or "
        f"train for longer: {resume}"
    )
    assert done.stderr.splitlines()[1] == said
    assert done.stderr.splitlines()[-1] == (
        "Next: python -m lightning_ham.solve 'my runs/a' FILE, python -m lightning_ham.draw 'my runs/a' -o "
        "attention.svg, or python -m lightning_ham.evaluate 'my runs/a'"
    )
    run = tmp_path / "my runs" / "a"
    assert json.loads((run / "training.json").read_text())["bar"] == {"2-8": 0.002, "9-16": 1.0}
    card = (run / "model" / "README.md").read_text()
    assert f"at lengths 2-8: at most 0.2 % of the sequences were to be wrong, and\n  {error} are." in card
    done = fit(tmp_path, *shlex.split(resume)[3:])
    assert done.stdout.startswith("epoch 2/2 ")


def test_an_epoch_without_a_validation_shows_none(fit, tmp_path, tiny_recipe):
    done = fit(tmp_path, tiny_recipe, "--trainer.check_val_every_n_epoch", "2", "--trainer.max_epochs", "5")
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert ["wrong" in line for line in lines] == [False, True, False, True, False]
    assert all("nll" in line and "episodes/s" in line for line in lines)


@pytest.mark.parametrize(
    ("option", "value"),
    [("seed_everything", "4"), ("weight_average", "0.5"), ("curriculum.threshold", "0.1"), ("data.hard_fraction", "1")],
)
def test_options_of_the_recipe_reach_the_training(fit, tmp_path, tiny_recipe, run, option, value):
    assert fit(tmp_path, tiny_recipe, f"--{option}", value).returncode == 0
    plain, other = (checkpoint(path / "checkpoints" / "last.ckpt") for path in (run, tmp_path / "runs" / "tiny"))
    assert not equal(plain["state_dict"], other["state_dict"])


def test_the_engine_is_a_key_of_the_recipe_and_not_of_the_model(fit, tmp_path, tiny_recipe, run):
    recipe = yaml.safe_load(tiny_recipe.read_text())
    recipe["model"] |= {"engine": "reference"}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(recipe))
    assert fit(tmp_path, "plain.yaml").returncode == 0
    other = tmp_path / "runs" / "plain"
    for folder, engine in ((run, "auto"), (other, "reference")):
        assert yaml.safe_load((folder / "recipe.yaml").read_text())["model"]["engine"] == engine
        assert checkpoint(folder / "checkpoints" / "last.ckpt")["hyper_parameters"]["engine"] == engine
    assert (other / "model" / "config.json").read_text() == (run / "model" / "config.json").read_text()
    assert other.joinpath("evaluation.json").is_file()


@pytest.mark.slow
def test_two_processes_share_one_run_folder(tmp_path, tiny_recipe, environment):
    command = [*COMMAND, tiny_recipe, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | {"WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tiny"
    assert [path.name for path in tmp_path.glob("runs/*")] == ["tiny"]
    assert len(list(run.glob("wandb/offline-run-*"))) == 1
    assert re.findall(r"^epoch (\d)/3", done.stdout, re.MULTILINE) == ["1", "2", "3"]
    assert done.stderr.count("Training search") == 1
    assert yaml.safe_load((run / "recipe.yaml").read_text())["run_dir"] == "runs/tiny"
    assert json.loads((run / "training.json").read_text())["episodes"] == 2 * 3 * 4 * 16
    assert json.loads((run / "evaluation.json").read_text())["results"][0]["episodes"] == 50


def test_a_recipe_of_the_paper_has_a_run_folder_and_a_name_of_its_own(fit, tmp_path):
    small = ["--data.batches_per_epoch", "1", "--data.validation_episodes", "4", "--trainer.max_epochs", "1"]
    done = fit(tmp_path, "paper/reverse", *small, "--evaluation.episodes", "[10, 5]")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "paper-reverse"
    assert json.loads((run / "training.json").read_text())["recipe"] == "paper/reverse"
    results = json.loads((run / "evaluation.json").read_text())["results"]
    assert [result["episodes"] for result in results] == [10, 5]
