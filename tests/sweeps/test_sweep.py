"""``python -m lightning_ham.sweep`` as its users see it: trials, resuming, ends of all kinds, and what it writes."""

import csv
import os
import re
import signal
from pathlib import Path

import optuna
import pytest
import yaml
from PIL import Image

from lightning_ham.runs.recipe.cli import RecipeCLI

OPTIONS = ("tiny.yaml", "--sampler=random", "--jobs=1", "--pruner=none", "--grace=2s")


def study(folder: Path, name: str = "sweep-tiny") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/runs/{name}/study.db")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs" / "sweep-tiny" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def starts(folder: Path, trial: int, seed: int = 1) -> list[str]:
    """Return the arguments of each start of a training."""
    (file,) = folder.glob(f"runs/sweep-tiny/trials/trial-{trial}-seed-{seed}-*/starts")
    return file.read_text().splitlines()


def rates(folder: Path) -> list[float]:
    return [trial.params["model.schedule.learning_rate"] for trial in study(folder).trials]


def is_over(number: int) -> bool:
    return Path(f"/proc/{number}").exists() is False


def training_at(folder: Path, trial: int, epoch: int):
    """Return a condition: the first training of a trial has come to an epoch; it is the process's number."""

    def condition() -> int | None:
        for file in folder.glob(f"runs/sweep-tiny/trials/trial-{trial}-seed-1-*/checkpoints/last.ckpt"):
            if (file.read_text() or "0") >= str(epoch):
                return int(starts(folder, trial)[-1].split()[0])
        return None

    return condition


def test_all_trials_are_judged_and_the_best_is_a_recipe(sweep, tmp_path, recipe):
    status, output = sweep(tmp_path, *OPTIONS, "--trials=5", "--trainer.max_epochs", "7", FULL="1")
    assert status == 0, output
    lines = output.splitlines()
    assert lines[0] == "5 trials, 0 of them done already, in runs/sweep-tiny"
    assert [line.partition(",")[0] for line in lines[1:6]] == [f"[{number}/5" for number in range(1, 6)]
    table = rows(tmp_path)
    assert [row["trial"] for row in table] == ["0", "1", "2", "3", "4"]
    for row in table:
        rate = float(row["model.schedule.learning_rate"])
        assert 1e-4 <= rate <= 1e-2
        assert (row["state"], float(row["value"])) == ("finished", pytest.approx(1 - 100 * rate, abs=1e-6))
    best = min(table, key=lambda row: float(row["value"]))
    header, content = (tmp_path / "runs/sweep-tiny/best.yaml").read_text().split("\nseed_everything", 1)
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"# The best recipe of 5 trials of the sweep sweep-tiny: trial {best['trial']}." in header
    assert "--trials=5 --trainer.max_epochs 7\n" in header
    written = yaml.safe_load(f"seed_everything{content}")
    assert written["model"]["schedule"]["learning_rate"] == float(best["model.schedule.learning_rate"])
    assert written["trainer"]["max_epochs"] == 7
    assert "sweep" not in written
    taken = RecipeCLI(tmp_path / "runs/sweep-tiny/best.yaml", [])
    assert yaml.safe_load(taken.resolved()) == written, "not a complete recipe"
    assert lines[-1].endswith("fit runs/sweep-tiny/best.yaml")
    markdown = (tmp_path / "runs/sweep-tiny/trials.md").read_text().splitlines()
    values = [float(line.split(" | ")[2]) for line in markdown[6:]]
    assert values == sorted(values), "the best is not the first"
    assert len(values) == 5
    for name in ("history.png", "importance.png"):
        with Image.open(tmp_path / "runs/sweep-tiny" / name) as picture:
            assert picture.format == "PNG"


def test_the_same_command_goes_on_and_repeats_nothing(sweep, tmp_path, recipe):
    assert sweep(tmp_path, *OPTIONS, "--trials=1")[0] == 0
    before = rates(tmp_path)
    recipe.write_text(recipe.read_text().replace("max_epochs: 3", "max_epochs: 3  # a comment"))
    status, output = sweep(tmp_path, *OPTIONS, "--trials=3")
    assert status == 0
    assert output.startswith("3 trials, 1 of them done already")
    assert rates(tmp_path)[:1] == before
    assert len(set(rates(tmp_path))) == 3, "the same values were drawn again"
    assert [len(starts(tmp_path, trial)) for trial in range(3)] == [1, 1, 1]


def test_the_median_of_the_seeds_is_judged(sweep, tmp_path, recipe):
    status, _ = sweep(tmp_path, *OPTIONS, "--trials=1", "--seeds=2", "--threads=3")
    assert status == 0
    (row,) = rows(tmp_path)
    assert row["seeds"] == "1 2"
    for seed in (1, 2):
        (arguments,) = starts(tmp_path, 0, seed)
        assert f"--seed_everything={seed} --run_dir=" in arguments
        assert arguments.endswith("--threads=3")


def test_a_trial_that_learns_less_than_others_is_pruned(sweep, tmp_path, recipe):
    options = (*OPTIONS[:3], "--pruner=median", "--startup=3", "--warmup=2", "--trials=12")
    assert sweep(tmp_path, *options, PACE="0.06")[0] == 0
    table = rows(tmp_path)
    pruned = [row for row in table if row["state"] == "pruned"]
    assert pruned
    assert all(2 <= int(row["episodes"]) / 1000 < 10 for row in pruned), "not ended early"
    finished = [float(row["model.schedule.learning_rate"]) for row in table if row["state"] == "finished"]
    # The median is of those that finished before, so that the worst of all at the end cannot have finished late.
    for row in pruned:
        earlier = sorted(
            float(other["model.schedule.learning_rate"])
            for other in table[: int(row["trial"])]
            if other["state"] == "finished"
        )
        assert float(row["model.schedule.learning_rate"]) < earlier[len(earlier) // 2]
    assert max(map(float, (row["model.schedule.learning_rate"] for row in table))) in finished


def test_refused_values_are_a_failed_trial_and_broken_weights_a_bad_one(sweep, tmp_path, recipe):
    space = "--space=data.batch_size=choice(13, 14, 16)"
    status, output = sweep(tmp_path, *OPTIONS, "--trials=9", space)
    assert status == 0
    states = {row["data.batch_size"]: (row["state"], row["note"]) for row in rows(tmp_path)}
    state, note = states["13"]
    assert state == "failed"
    assert note.startswith("error: Expected a lucky number, but got 13. (see runs/sweep-tiny/trials/trial-")
    assert states["14"] == ("pruned", "its weights are not finite any more")
    assert states["16"] == ("finished", "")
    worst = [float(row["value"]) for row in rows(tmp_path) if row["data.batch_size"] == "14"]
    assert worst == [2.0] * len(worst), "values that break a training up must count as bad"
    assert "FAILED; error: Expected a lucky number" in output


def test_trials_that_all_fail_end_the_sweep(sweep, tmp_path, recipe):
    status, output = sweep(tmp_path, *OPTIONS, "--trials=50", "--data.batch_size=13")
    assert status == 1
    assert "5 trials have failed one after the other, so that the sweep ends" in output.splitlines()[-1]
    assert len(study(tmp_path).trials) == 5


def test_ctrl_c_ends_cleanly_and_the_same_command_resumes(sweep, tmp_path, recipe, until):
    running = sweep.start(tmp_path, *OPTIONS, "--trials=3", "--jobs=2", PACE="0.2")
    numbers = [until(training_at(tmp_path, trial, 2)) for trial in (0, 1)]
    running.kill(signal.SIGINT)
    assert running.wait() == 130
    assert re.search(r"Interrupted\. Go on with: .*lightning_ham\.sweep tiny\.yaml .*--trials=3", running.output)
    assert "Traceback" not in running.output
    assert all(map(is_over, numbers)), "a training goes on"
    states = [trial.state.name for trial in study(tmp_path).trials]
    assert states == ["FAIL", "FAIL", "WAITING", "WAITING"]
    status, output = sweep(tmp_path, *OPTIONS, "--trials=3", "--jobs=2")
    assert status == 0
    assert output.startswith("3 trials, 0 of them done already")
    for trial in (0, 1):
        again = starts(tmp_path, trial)
        assert len(again) == 2
        assert "--ckpt_path=last" in again[1]
    assert [row["state"] for row in rows(tmp_path)] == ["finished"] * 3
    assert [int(row["episodes"]) for row in rows(tmp_path)] == [10_000] * 3


def test_a_killed_training_is_retried_from_its_checkpoint(sweep, tmp_path, recipe, until):
    running = sweep.start(tmp_path, *OPTIONS, "--trials=2", PACE="0.1")
    os.kill(until(training_at(tmp_path, 0, 3)), signal.SIGKILL)
    assert running.wait() == 0
    assert "ended by SIGKILL, see runs/sweep-tiny/trials/trial-0-seed-1" in running.output
    first, again = starts(tmp_path, 0)
    assert "--ckpt_path" not in first
    assert "--ckpt_path=last" in again
    assert [row["state"] for row in rows(tmp_path)] == ["finished", "finished"]
    assert sorted(trial.state.name for trial in study(tmp_path).trials) == ["COMPLETE", "COMPLETE", "FAIL"]


@pytest.mark.parametrize("outlives", [True, False])
def test_a_killed_sweep_loses_at_most_what_its_trials_had_not_saved(sweep, tmp_path, recipe, until, outlives):
    running = sweep.start(tmp_path, *OPTIONS, "--trials=1", PACE="0.1")
    training = until(training_at(tmp_path, 0, 3))
    running.kill(signal.SIGKILL)
    if not outlives:
        os.kill(training, signal.SIGKILL)
    running.wait()
    assert sweep(tmp_path, *OPTIONS, "--trials=1")[0] == 0
    tries = study(tmp_path).trials
    assert [trial.state.name for trial in tries] == ["FAIL", "COMPLETE"]
    assert tries[1].params == tries[0].params
    assert len(starts(tmp_path, 0)) == (1 if outlives else 2), "a training that went on was started again"
    assert [int(row["episodes"]) for row in rows(tmp_path)] == [10_000]
