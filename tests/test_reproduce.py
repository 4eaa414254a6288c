"""The harness: what it trains, what it does not train twice, and what it makes of what was trained."""

import datetime
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lightning_ham import reproduce
from lightning_ham.reproduction.jobs import collect, comparison_size, make_job, make_jobs, models_of, reproducible_tasks
from lightning_ham.reproduction.records import sha256
from lightning_ham.reproduction.trainings import Settings, Trainings, command
from lightning_ham.runs.recipe.catalog import find_recipe
from lightning_ham.runs.recipe.cli import RecipeCLI

SETTINGS = Settings(datetime.timedelta(minutes=20), 1, 10_000, 1_000)
SMALL = [
    "--data.batch_size=8",
    "--data.batches_per_epoch=2",
    "--data.validation_episodes=8",
    "--data.capacity=2",
    "--model.controller_options={controller_size: 4, leaf_size: 4}",
]


def finished(job, seed_of_weights=b"weights", wrong=3, max_time=None):
    """Make a job's run folder as it is in the end, after 12.5 seconds of training."""
    (job.run_dir / "model").mkdir(parents=True)
    (job.run_dir / "model" / "model.safetensors").write_bytes(seed_of_weights)
    result = {"lengths": [1, 32], "episodes": 100, "wrong_sequences": wrong, "sequence_error": wrong / 100}
    evaluation = {"task": job.task, "num_parameters": 7, "seed": 0, "results": [result]}
    curve = [
        {"update": 50, "seconds": 9, "errors": {"1-32": 0.02}},
        {"update": 60, "seconds": 11, "errors": {"1-32": 0.01}},
    ]
    training = {"seed": job.seed, "command": "fit", "updates": 70, "episodes": 700, "seconds": 12.5, "machine": "m"}
    hyper_parameters = {"trainer": {"max_time": max_time}, "data": {"capacity": 32}, "model": {}}
    training |= {"versions": {}, "commit": None, "curve": curve, "hyper_parameters": hyper_parameters}
    (job.run_dir / "evaluation.json").write_text(json.dumps(evaluation))
    (job.run_dir / "training.json").write_text(json.dumps(training))


# What there is to train.


def test_every_sequence_task_is_trained_with_its_comparison_models_and_the_papers_method():
    for task in ("reverse", "search", "merge", "sort", "add"):
        assert task in reproducible_tasks()
        assert models_of(task)[:4] == ["ham", "lstm", "lstm_attention", "paper-reinforce"]
    assert "paper-soft" in models_of("sort")
    assert not any("/" in task for task in reproducible_tasks())


def test_what_has_another_controller_is_not_compared_with_lstms(tmp_path, monkeypatch):
    recipe = yaml.safe_load(find_recipe("sort").read_text())
    recipe["model"]["controller"] = "raw_ham"
    (tmp_path / "sort.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr("lightning_ham.runs.recipe.catalog.RECIPES", tmp_path)
    monkeypatch.setattr("lightning_ham.reproduction.jobs.RECIPES", tmp_path)
    assert models_of("sort") == ["ham"]


@pytest.mark.parametrize("task", ["reverse", "search", "merge", "sort", "add"])
@pytest.mark.parametrize("model", ["lstm", "lstm_attention"])
def test_comparison_models_are_larger_and_trained_by_the_same_recipe(task, model, tmp_path):
    job = make_job(task, model, 1, tmp_path)
    ours, theirs = RecipeCLI(find_recipe(task), []), RecipeCLI(find_recipe(job.recipe), list(job.overrides))
    assert theirs.model.model.controller_name == model
    assert theirs.model.model.num_parameters > ours.model.model.num_parameters
    for key in ("curriculum", "stop", "weight_average"):
        assert theirs.config[key] == ours.config[key]
    no_tree = {"deeper_fraction": 0.0, "shifted_fraction": 0.0}
    assert vars(theirs.config.data) == vars(ours.config.data) | no_tree


def test_a_comparison_model_grows_with_ours(monkeypatch):
    small = comparison_size("sort", "lstm")
    larger = yaml.safe_load(find_recipe("sort").read_text())
    larger["model"]["controller_options"] |= {"hidden_size": 1024}
    monkeypatch.setattr("lightning_ham.reproduction.jobs._read", lambda recipe: larger)
    assert comparison_size("sort", "lstm") > small == 128


def test_ours_come_first_and_every_task_once_before_the_second_seed(tmp_path):
    jobs = make_jobs(["sort", "merge"], ["lstm", "ham"], [1, 2], tmp_path)
    assert [job.name for job in jobs] == [
        f"{task} {model} seed {seed}" for model in ("ham", "lstm") for seed in (1, 2) for task in ("sort", "merge")
    ]
    assert len({job.run_dir for job in jobs}) == 8


def test_a_changed_recipe_is_another_run(tmp_path, monkeypatch):
    job = make_job("sort", "ham", 1, tmp_path)
    assert job == make_job("sort", "ham", 1, tmp_path)
    assert make_job("sort", "ham", 2, tmp_path).digest == job.digest
    assert make_job("sort", "ham", 1, tmp_path, ("--trainer.max_epochs=1",)).run_dir != job.run_dir
    assert make_job("sort", "lstm", 1, tmp_path).digest != job.digest
    text = find_recipe("sort").read_text()
    (tmp_path / "sort.yaml").write_text(f"# another comment\n{text}")
    monkeypatch.setattr("lightning_ham.reproduction.jobs.find_recipe", lambda name: tmp_path / "sort.yaml")
    assert make_job("sort", "ham", 1, tmp_path) == job
    (tmp_path / "sort.yaml").write_text(text.replace("hidden_size: 64", "hidden_size: 65"))
    assert make_job("sort", "ham", 1, tmp_path).run_dir != job.run_dir


def test_the_command_of_a_training_and_of_going_on_with_it(tmp_path):
    job = make_job("sort", "lstm_attention", 3, tmp_path)
    new = command(job, SETTINGS)
    assert new[0] == "sort"
    assert {"--seed_everything=3", f"--run_dir={job.run_dir}", "--trainer.max_time=00:00:20:00"} <= set(new)
    assert {"--model.controller=lstm_attention", "--evaluation.episodes=[10000, 10000, 50]"} <= set(new)
    assert "--evaluation.lengths=[1-32, 33-128, 129-1024]" in new
    cli = RecipeCLI(find_recipe(new[0]), new[1:])
    assert cli.config.evaluation.lengths == [(1, 32), (33, 128), (129, 1024)]
    (job.run_dir / "checkpoints").mkdir(parents=True)
    (job.run_dir / "checkpoints" / "last.ckpt").touch()
    again = command(job, SETTINGS._replace(budget=None))
    assert again[:2] == [str(job.run_dir / "recipe.yaml"), "--ckpt_path=last"]
    assert not any(argument.startswith("--model") for argument in again)
    assert "--trainer.max_time=null" in again, "the recipe in the run folder has the limit that cut the run off"
    assert RecipeCLI(find_recipe("sort"), ["--trainer.max_time=null"]).config.trainer.max_time is None
    assert "--evaluation.episodes=[10000, 10000, 1000]" in command(make_job("sort", "ham", 3, tmp_path), SETTINGS)


# Collecting.


def test_results_have_every_seed_that_has_ended(tmp_path):
    jobs = [make_job("sort", "ham", seed, tmp_path / "runs") for seed in (1, 2, 3)]
    assert collect(jobs[0], tmp_path / "results") is None
    for job in (jobs[2], jobs[0]):
        finished(job, f"weights {job.seed}".encode(), wrong=job.seed)
    (jobs[1].run_dir / "checkpoints").mkdir(parents=True)
    collected = collect(jobs[0], tmp_path / "results")
    assert collected == json.loads((tmp_path / "results" / "sort-ham.json").read_text())
    assert [run["seed"] for run in collected["runs"]] == [1, 3]
    run = collected["runs"][1]
    assert run["weights_sha256"] == sha256(jobs[2].run_dir / "model" / "model.safetensors")
    assert run["first_at_one_percent"]["update"] == 60
    assert (run["updates"], run["seconds"], run["num_parameters"]) == (70, 12.5, 7)
    assert (run["trained_on"], run["supervision"]) == ("up to 32", "answers")
    assert run["reached_bar"] is False


def test_seeds_of_other_machines_stay_unless_the_recipe_has_changed(tmp_path):
    elsewhere, here = (make_job("sort", "ham", seed, tmp_path / str(seed)) for seed in (1, 2))
    finished(elsewhere)
    collect(elsewhere, tmp_path / "results")
    finished(here)
    assert [run["seed"] for run in collect(here, tmp_path / "results")["runs"]] == [1, 2]
    changed = make_job("sort", "ham", 3, tmp_path / "3", ("--weight_average=0",))
    finished(changed)
    assert [run["seed"] for run in collect(changed, tmp_path / "results")["runs"]] == [3]


# Training.


def test_what_another_process_trains_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lightning_ham.runs.processes.subprocess.Popen",
        lambda *arguments, **options: pytest.fail("it was started"),
    )
    job = make_job("sort", "ham", 1, tmp_path)
    job.log.parent.mkdir(parents=True)
    with job.log.open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert Trainings(SETTINGS).train(job) == "busy"
    finished(job)
    assert Trainings(SETTINGS).train(job) == "done", "the other process has done it"
    stopped = Trainings(SETTINGS)
    stopped.stop()
    assert stopped.train(make_job("sort", "ham", 2, tmp_path)) == "stopped"


def test_a_failed_training_is_told_and_the_others_are_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lightning_ham.reproduction.trainings.command", lambda job, settings: ["nothing.yaml"])
    arguments = ["--only", "sort", "--models", "ham", "--seeds", "2", "--runs", str(tmp_path / "runs")]
    finished(make_job("sort", "ham", 1, tmp_path / "runs"))
    (tmp_path / "results").mkdir()
    monkeypatch.setattr("lightning_ham.reproduction.session.write", lambda output: [])
    assert reproduce.main([*arguments, "--output", str(tmp_path)]) == 1
    first, failed = capsys.readouterr().out.splitlines()
    assert first == "2 trainings, 1 of them done already"
    log = re.fullmatch(r"\[2/2, \d+ s\] sort ham seed 2: FAILED, see (\S+)", failed)[1]
    assert "Expected a recipe, but got 'nothing.yaml'" in Path(log).read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "srot"], "Expected some of reverse, search, merge, sort, add"),
        (["--models", "gru"], "Expected some of ham, lstm, lstm_attention, paper-reinforce, paper-soft, but got 'gru'"),
        (["--budget", "20"], "Expected a time such as 90s, 20m or 1h, but got '20'"),
        (["--seeds", "2", "--first_seed", "3"], "Expected --first_seed of at most --seeds (2), but got 3"),
        (["--sedes", "2"], "Unknown argument '--sedes'; did you mean --seeds?"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        reproduce.main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_list_says_what_is_done_and_does_nothing(tmp_path, capsys):
    jobs = [make_job("sort", "ham", seed, tmp_path) for seed in (1, 2, 3)]
    finished(jobs[0])
    jobs[1].log.touch()
    before = sorted(tmp_path.rglob("*"))
    options = ["--only", "sort", "--models", "ham", "--seeds", "3", "--runs", str(tmp_path), "--output", str(tmp_path)]
    assert reproduce.main([*options, "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["done", "begun", "to"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("max_time", "budget", "state"),
    [
        (None, None, "done"),
        ("00:00:00:13", None, "done"),  # ended before that
        ("00:00:00:12", None, "begun"),  # cut off
        ("00:00:00:12", "12s", "done"),
        ("00:00:00:12", "13s", "begun"),
    ],
)
def test_what_a_smaller_budget_cut_off_is_gone_on_with(max_time, budget, state, tmp_path, capsys):
    job = make_job("sort", "ham", 1, tmp_path)
    finished(job, max_time=max_time)
    job.log.touch()
    options = ["--only", "sort", "--models", "ham", "--seeds", "1", "--runs", str(tmp_path), "--list"]
    assert reproduce.main([*options, *(["--budget", budget] if budget else [])]) == 0
    assert capsys.readouterr().out.split()[0] == state


@pytest.mark.slow
def test_two_side_by_side_interrupted_and_gone_on_with(tmp_path, environment):
    """As a user sees it: Ctrl-C ends both trainings, and the same command resumes them."""
    options = ["--only", "reverse", "--models", "ham", "--seeds", "2", "--episodes", "20", "--long_episodes", "2"]
    arguments = [sys.executable, "-m", "lightning_ham.reproduce", *options, *SMALL, "--stop.errors=null"]
    runs = tmp_path / "runs" / "reproduce"
    process = subprocess.Popen(
        [*arguments, "--budget", "1h", "--trainer.max_epochs=1000000"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # see test_fit
    )
    while len([path for path in runs.glob("*/*/checkpoints/last.ckpt") if path.with_name("best.ckpt").exists()]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130
    assert output.splitlines()[0] == "2 trainings, 0 of them done already"
    assert output.endswith("Interrupted. Go on with the same command.\n")
    for log in runs.glob("*/*.log"):
        with log.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no training is left that writes it
    updates = [json_of(run / "training.json") for run in runs.glob("*/[12]")]
    assert [sorted(training) for training in updates] == [["command", "recipe"]] * 2, "neither has ended"

    # The overrides belong to the run, the budget does not.
    done = subprocess.run(
        [*arguments, "--budget", "1s", "--trainer.max_epochs=1000000"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in runs.glob("*/*.log"))
    lines = done.stdout.splitlines()
    assert re.fullmatch(
        r"\[1/2, .*\] reverse ham seed \d: wrong: \d+ of 20 at 1-32, .*; bar \w+; .* updates in .*", lines[1]
    )
    assert lines[-1] == "Wrote RESULTS.md"
    measured = json_of(tmp_path / "results" / "reverse-ham.json")
    assert [run["seed"] for run in measured["runs"]] == [1, 2]
    for run in measured["runs"]:
        folder = next(runs.glob(f"*/{run['seed']}"))
        assert run["weights_sha256"] == sha256(folder / "model" / "model.safetensors")
        assert run["command"].count("--ckpt_path=last") == 1
        assert [result["episodes"] for result in run["results"]] == [20, 20, 2]
    assert "| reverse | answers | 0 % / 0 % | 0 of 2 |" in (tmp_path / "RESULTS.md").read_text()


def json_of(path):
    return json.loads(path.read_text())
