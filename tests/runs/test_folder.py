"""Who owns a run folder, and what a run never writes over."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from lightning_ham.runs.folder import MARKER, OWNER, Claim, Owned, choose, read_json, write_whole

LAST = Path("checkpoints", "last.ckpt")


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(done) -> str:
    """The one line with which something was refused."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_recipe, fit) -> Path:
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    assert fit(folder, tiny_recipe, "--trainer.max_epochs", "2").returncode == 0
    return folder / "runs" / "tiny"


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "tiny"))


# One owner.


@pytest.mark.slow
def test_runs_that_start_together_have_a_folder_each(tmp_path, tiny_recipe, environment):
    command = [sys.executable, "-m", "lightning_ham.fit", tiny_recipe, "--trainer.max_epochs", "1", "--seed_everything"]
    started = [
        subprocess.Popen([*command, str(seed)], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        for seed in (1, 2)
    ]
    assert [process.wait() for process in started] == [0, 0]
    runs = sorted((tmp_path / "runs").iterdir())
    assert [run.name for run in runs] == ["tiny", "tiny-2"]
    seeds = [yaml.safe_load((run / "recipe.yaml").read_text())["seed_everything"] for run in runs]
    assert sorted(seeds) == [1, 2]
    assert [json.loads((run / "training.json").read_text())["seed"] for run in runs] == seeds


@pytest.mark.parametrize("options", [(), ("--ckpt_path", "last")])
def test_a_folder_that_is_owned_is_refused_and_left_alone(fit, run, tiny_recipe, options):
    if not options:
        shutil.rmtree(run / "checkpoints")
    with Claim(run):
        before = snapshot(run)
        line = refused(fit(run.parent.parent, tiny_recipe, "--run_dir", "runs/tiny", *options))
        assert snapshot(run) == before
    assert f"but process {os.getpid()} trains in runs/tiny; wait until it has ended, or choose another" in line


def test_a_run_without_a_name_takes_the_next_one_where_a_folder_is_owned(fit, tmp_path, tiny_recipe):
    with Claim(tmp_path / "runs" / "tiny"):
        assert "in runs/tiny-2\n" in fit(tmp_path, tiny_recipe, "--trainer.max_epochs", "1").stderr


def test_the_claim_of_a_killed_owner_does_not_hold(fit, tmp_path, tiny_recipe):
    """Not even while what it started lives on, as the processes that draw its episodes do."""
    process = fit.start(tmp_path, tiny_recipe, "--trainer.max_epochs", "100000", "--data.num_workers", "2")
    last = tmp_path / "runs" / "tiny" / LAST
    deadline = time.monotonic() + 300
    while not (last.exists() and torch.load(last, weights_only=True)["global_step"]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (last.parent.parent / OWNER).read_text().splitlines()[0] == str(process)
    os.kill(process, signal.SIGKILL)
    fit.wait()
    epochs = str(torch.load(last, weights_only=True)["epoch"] + 2)
    done = fit(tmp_path, tiny_recipe, "--ckpt_path", "last", "--trainer.max_epochs", epochs)
    assert done.returncode == 0, done.stderr
    assert not (last.parent.parent / OWNER).exists()


def test_a_claim_is_for_one_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "runs" / "deep"
    with Claim(folder), pytest.raises(Owned, match=f"process {os.getpid()} trains in"):
        Claim(folder)
    assert not (tmp_path / "runs").exists(), "it was made for the claim, and nothing was written"
    folder.mkdir(parents=True)
    with Claim(folder):
        pass
    assert list(folder.iterdir()) == []
    with pytest.raises(FileExistsError):
        Claim(folder, must_be_made=True)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_the_file_system_cannot_lock_a_file_claims_hold_as_well(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with Claim(tmp_path), pytest.raises(Owned, match=f"process {os.getpid()} trains in"):
        Claim(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    (tmp_path / MARKER).write_text(f"{dead.pid}\n{os.uname().nodename}\n")
    with Claim(tmp_path):
        pass
    (tmp_path / MARKER).write_text(f"{dead.pid}\nanother-machine\n")
    with pytest.raises(Owned, match=f"process {dead.pid} on another-machine trains in"):
        Claim(tmp_path)


# Which folder.


def test_a_recipe_in_a_copied_run_resumes_the_copy(fit, run, tmp_path):
    copy = tmp_path / "elsewhere" / "mine"
    shutil.copytree(run, copy)
    before = snapshot(run)
    done = fit(tmp_path, "elsewhere/mine/recipe.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "3")
    assert done.returncode == 0, done.stderr
    assert "Resuming search, 1683 parameters, in elsewhere/mine\n" in done.stderr
    assert torch.load(copy / LAST, weights_only=True)["epoch"] == 2
    assert snapshot(run) == before
    # What is asked for beside the recipe wins.
    choice = choose(tmp_path / "x", copy / "recipe.yaml", str(run), "last", is_override=True)
    assert list(choice.folders) == [run]


def test_the_home_folder_is_expanded_once(fit, tmp_path, tiny_recipe):
    home = tmp_path / "home"
    here = tmp_path / "here"
    home.mkdir()
    here.mkdir()
    done = fit(here, tiny_recipe, "--run_dir=~/mine", "--trainer.max_epochs", "1", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert list(here.iterdir()) == []
    assert [path.name for path in home.glob("mine/*.json")] in (
        ["training.json", "evaluation.json"],
        ["evaluation.json", "training.json"],
    )
    done = fit(here, tiny_recipe, "--ckpt_path=~/mine/checkpoints/last.ckpt", "--trainer.max_epochs=2", HOME=str(home))
    assert f"Resuming search, 1683 parameters, in {home}/mine\n" in done.stderr
    line = refused(fit(here, tiny_recipe, "--run_dir=~no-such-user/x"))
    assert line.startswith("error: Expected a path for --run_dir, but got '~no-such-user/x': ")
    assert list(here.iterdir()) == []


# What is never written over.


@pytest.mark.parametrize("name", ["recipe.yaml", "training.json", "model/README.md", "checkpoints/mine", "metrics/x"])
def test_a_new_run_does_not_write_over_what_is_there(fit, tmp_path, tiny_recipe, name):
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    line = refused(fit(tmp_path, tiny_recipe, "--run_dir", "."))
    assert f"Expected a new run folder, but . has {Path(name).parts[0]} already, which the run would overwrite" in line
    assert snapshot(tmp_path) == {mine: b"mine"}


def test_a_run_does_not_write_over_the_recipe_that_it_is_of(fit, run, tmp_path, tiny_recipe):
    recipe = tmp_path / "recipe.yaml"
    shutil.copy(tiny_recipe, recipe)
    before = recipe.read_bytes()
    line = refused(fit(tmp_path, "recipe.yaml", "--run_dir", "."))
    assert "but . has recipe.yaml already" in line
    # Nor does one that goes on from a checkpoint of another training beside it.
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    for options in (["--ckpt_path", "checkpoints/last.ckpt"], ["--ckpt_path", "last", "--run_dir", "."]):
        line = refused(fit(tmp_path, "recipe.yaml", *options))
        assert "but recipe.yaml is one of your own, which the run would overwrite" in line
    assert recipe.read_bytes() == before


def test_a_run_that_was_killed_before_its_first_step_is_begun_anew(fit, run, tmp_path, tiny_recipe):
    shutil.rmtree(run / "checkpoints")
    done = fit(tmp_path, tiny_recipe, "--run_dir", "runs/tiny", "--trainer.max_epochs", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "training.json").read_text())["updates"] == 4


def test_a_checkpoint_of_one_run_does_not_go_on_in_the_folder_of_another(fit, run, tmp_path, tiny_recipe):
    other = tmp_path / "runs" / "other"
    shutil.copytree(run, other)
    before = snapshot(other)
    line = refused(fit(tmp_path, tiny_recipe, "--ckpt_path", "runs/tiny/checkpoints/last.ckpt", "--run_dir", other))
    assert f"Expected a new run folder, but {other} holds a run" in line
    assert snapshot(other) == before


@pytest.mark.parametrize(
    "name",
    ["recipe.yaml", "checkpoints", "checkpoints/last.ckpt", "model/config.json", "metrics", "wandb_run_id", OWNER],
)
@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_in_a_run_folder_is_not_written_through(fit, run, tmp_path, tiny_recipe, name, dangling):
    target = tmp_path / "precious"
    link = run / name
    if link.exists() and not dangling:
        link.rename(target)
    elif link.is_dir():
        shutil.rmtree(link)
    else:
        link.unlink(missing_ok=True)
        if not dangling:
            target.touch()
    link.symlink_to(target)
    can_resume = not (dangling and name.startswith("checkpoints"))
    options = ["--ckpt_path", "last"] if can_resume else ["--run_dir", "runs/tiny"]
    before = snapshot(tmp_path)
    line = refused(fit(tmp_path, tiny_recipe, *options))
    assert f"Expected runs/tiny/{name} to be the run's own, but it is a symbolic link to {target}" in line
    assert snapshot(tmp_path) == before


def test_a_run_folder_may_be_a_link_itself(fit, tmp_path, tiny_recipe):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to("disk")
    (tmp_path / "disk" / "big").mkdir()
    (tmp_path / "disk" / "mine").symlink_to("big")
    assert fit(tmp_path, tiny_recipe, "--trainer.max_epochs", "1").returncode == 0
    assert fit(tmp_path, tiny_recipe, "--trainer.max_epochs", "1", "--run_dir", "runs/mine").returncode == 0
    assert (tmp_path / "disk" / "tiny" / "evaluation.json").is_file()
    assert (tmp_path / "disk" / "big" / "evaluation.json").is_file()


def test_a_write_that_breaks_off_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"before")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"after")
    assert snapshot(tmp_path) == {path: b"before"}
    (tmp_path / "file.partial").symlink_to(tmp_path / "precious")  # of whoever put it there
    write_whole(path, b"after")
    assert snapshot(tmp_path) == {path: b"after"}


# Damaged files beside a checkpoint.


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("training.json", b"", r"runs/tiny/training\.json is damaged: .+"),
        ("training.json", b"\xff\x00", r"runs/tiny/training\.json is damaged: .+"),
        ("training.json", b"[1]", r"runs/tiny/training\.json is damaged: .+"),
        ("metrics/version_0/metrics.csv", b"\xff\xfe\x00\x01", r"\S+metrics\.csv is damaged; .+"),
        ("metrics/version_0/metrics.csv", b"epoch,step\nx,y\n", r"\S+metrics\.csv is damaged; .+"),
        (
            "metrics/version_0/metrics.csv",
            b"epoch,val/current/sequence_error\n1,0.5\n",
            r"\S+metrics\.csv is damaged; .+",
        ),
        ("evaluation.json", b"", None),
        ("metrics/version_x/metrics.csv", b"x", None),
        ("recipe.yaml", b"\xff", None),
        ("checkpoints/best.ckpt", b"", r"runs/tiny/checkpoints/best\.ckpt does not tell how good it is; .+"),
    ],
)
def test_damaged_files_beside_the_checkpoint_cost_a_warning(fit, run, tmp_path, tiny_recipe, name, content, said):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(content)
    done = fit(tmp_path, tiny_recipe, "--ckpt_path", "last", "--trainer.max_epochs", "3")
    assert done.returncode == 0, done.stderr
    warned = done.stderr.splitlines()[1:-2] if name != "training.json" else done.stderr.splitlines()[:1]
    assert len(warned) == (said is not None)
    assert said is None or re.fullmatch(said, warned[0])
    assert json.loads((run / "training.json").read_text())["updates"] == 12
    assert json.loads((run / "evaluation.json").read_text())["results"]


def test_with_nothing_left_to_train_a_damaged_best_gives_way_to_the_last(fit, run, tmp_path, tiny_recipe):
    (run / "checkpoints" / "best.ckpt").write_bytes(b"damaged")
    done = fit(tmp_path, tiny_recipe, "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert done.returncode == 0, done.stderr
    assert "best.ckpt: Expected a whole checkpoint, but got a damaged file" in done.stderr
    assert (run / "evaluation.json").is_file()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("metrics", "Expected a folder at runs/tiny/metrics, but it is a file"),
        ("evaluation.json", "Expected a file at runs/tiny/evaluation.json, but it is a folder"),
        ("checkpoints/best.ckpt", "Expected a file at runs/tiny/checkpoints/best.ckpt, but it is a folder"),
    ],
)
def test_a_file_of_another_kind_is_told_of_before_anything_is_written(fit, run, tmp_path, tiny_recipe, name, said):
    if name == "metrics":
        shutil.rmtree(run / name)
        (run / name).touch()
    else:
        (run / name).unlink()
        (run / name).mkdir()
    before = snapshot(run)
    assert said in refused(fit(tmp_path, tiny_recipe, "--ckpt_path", "last"))
    assert snapshot(run) == before


def test_json_that_is_no_object_goes_unread(tmp_path, caplog):
    (tmp_path / "x.json").write_text("null")
    assert read_json(tmp_path / "x.json") == read_json(tmp_path / "none.json") == {}
    assert [record.message.partition(" is damaged")[0] for record in caplog.records] == [str(tmp_path / "x.json")]
