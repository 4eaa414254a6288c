"""Checkpoints that trainings go on from: forged ones are told in one line, and nothing that they name is run."""

import copy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from packaging.requirements import Requirement

from lightning_ham import draw, evaluate, push, solve

ROOT = Path(__file__).parent.parent
EVIL = (
    "from pathlib import Path\nPath(__file__).with_name('ran').touch()\ndef make(cls, config): pass\nclass Made: pass\n"
)
CODE = {
    "instantiator": {"_instantiator": "evil.make"},
    "lightning's own": {"_instantiator": "pytorch_lightning.cli.instantiate_module", "_class_path": "evil.Made"},
    "list": {"_instantiator": ["evil.make"]},
    "class": {"_class_path": "evil.Made"},
}


@pytest.fixture(scope="module")
def trained(fit, tiny_recipe, tmp_path_factory):
    """A run folder with a checkpoint to go on from."""
    folder = tmp_path_factory.mktemp("trained")
    done = fit(folder, tiny_recipe, "--trainer.max_epochs", "1", "--evaluation.episodes", "5")
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "tiny"


@pytest.fixture
def forge(trained, tmp_path):
    """Writes a copy of the run with changed checkpoints, and a module that reports its import."""

    def forge(change):
        run = shutil.copytree(trained, tmp_path / "runs" / "tiny")
        shutil.rmtree(run / "model")
        (run / "evaluation.json").unlink()
        content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        change(content)
        for name in ("last", "best"):
            torch.save(content, run / "checkpoints" / f"{name}.ckpt")
        (tmp_path / "evil.py").write_text(EVIL)
        return run

    return forge


class Finished(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def check_refusal(done, *expected):
    assert done.returncode == 2, done
    assert done.stdout == ""
    *before, line = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    assert len(line) < 700
    told = ("Resuming ", "The dirpath has changed")  # the latter as the run is a copy
    assert [other for other in before if not any(part in other for part in told)] == []
    for part in expected:
        assert part in line


def check_that_code_is_refused(done, folder):
    check_refusal(done, "Expected plain hyper-parameters, but '_", "names code to run", "it is refused.")
    assert not (folder / "ran").exists()
    subprocess.run([sys.executable, "-c", "import evil"], cwd=folder, check=True)
    assert (folder / "ran").exists(), "the module of this test is a dud"


@pytest.mark.parametrize("case", CODE)
@pytest.mark.parametrize("checkpoint", ["last", "runs/tiny/checkpoints/best.ckpt"])
def test_code_that_a_checkpoint_names_is_not_run_by_fit(forge, fit, tmp_path, case, checkpoint):
    forge(lambda content: content["hyper_parameters"].update(CODE[case]))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    options = ["--ckpt_path", checkpoint, "--trainer.max_epochs", "2"]
    done = fit(tmp_path, "runs/tiny/recipe.yaml", *options, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    check_that_code_is_refused(done, tmp_path)


@pytest.mark.parametrize("case", CODE)
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (evaluate, ["runs/tiny", "--episodes", "5"]),
        (evaluate, ["runs/tiny/checkpoints/last.ckpt", "--episodes", "5"]),
        (solve, ["runs/tiny/checkpoints/best.ckpt"]),
        (draw, ["runs/tiny", "--output", "x.svg"]),
        (push, ["runs/tiny", "ada/x"]),
    ],
    ids=["evaluate", "evaluate last.ckpt", "solve", "draw", "push"],
)
def test_code_that_a_checkpoint_names_is_not_run(forge, tmp_path, monkeypatch, capsys, case, module, arguments):
    forge(lambda content: content["hyper_parameters"].update(CODE[case]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_ada")
    monkeypatch.setattr("socket.socket.connect", None)  # no attempt on the network
    with pytest.raises(SystemExit) as ended:
        module.main(arguments)
    check_that_code_is_refused(Finished(ended.value.code, *capsys.readouterr()), tmp_path)


def test_releases_of_lightning_that_run_code_of_checkpoints_are_not_taken():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (lightning,) = [
        requirement
        for requirement in map(Requirement, project["dependencies"])
        if requirement.name == "pytorch-lightning"
    ]
    assert "2.6.5" not in lightning.specifier
    assert "2.6.6" in lightning.specifier


def put(*path, value):
    """A change that puts a value somewhere into a checkpoint."""

    def change(content):
        *above, last = path
        for key in above:
            content = content[key]
        content[last] = value

    return change


def drop(*path):
    """A change that removes something from a checkpoint."""

    def change(content):
        *above, last = path
        for key in above:
            content = content[key]
        del content[last]

    return change


EPOCHS = ("loops", "fit_loop", "epoch_progress", "current")
ADAM = ("optimizer_states", 0, "state", 3)
FORGED = {
    "endless": (put(*EPOCHS, "processed", value=float("nan")), "Expected counts of epochs and batches", "but got nan."),
    "negative": (put(*EPOCHS, "completed", value=-3), "Expected counts of epochs and batches", "but got -3."),
    "huge": (put(*EPOCHS, "completed", value=10**400), "Expected counts of epochs", "but got 1000"),
    "text": (put(*EPOCHS, "ready", value="\x1b[31m"), "Expected counts of epochs", r"'\x1b[31m'."),
    "no loops": (drop("loops", "fit_loop"), "Expected to go on from ", "KeyError: 'fit_loop'."),
    "version": (put("pytorch-lightning_version", value="9" * 99_999), "with Lightning's version, but got '999"),
    "version's type": (put("pytorch-lightning_version", value=[2]), "with Lightning's version, but got [2]."),
    "no version": (drop("pytorch-lightning_version"), "with Lightning's version, but got None."),
    "no optimizer": (drop("optimizer_states"), "Expected to go on from ", "KeyError"),
    "moments of another shape": (put(*ADAM, "exp_avg", value=torch.zeros(77)), "Expected to go on from "),
    "no moments": (drop(*ADAM, "exp_avg"), "Expected to go on from ", "KeyError: 'exp_avg'"),
    "moments that are text": (put(*ADAM, "exp_avg", value="\x1b" * 9999), "Expected to go on from ", "AttributeError"),
    "moments without values": (put(*ADAM, "exp_avg", value=torch.zeros(8, device="meta")), "to be a dense tensor"),
    "sparse moments": (put(*ADAM, "exp_avg", value=torch.eye(8).to_sparse()), "to be a dense tensor in memory"),
    "groups": (drop("optimizer_states", 0, "param_groups", 0, "params"), "Expected to go on from ", "KeyError"),
    "no schedule": (drop("lr_schedulers"), "Expected to go on from "),
    "callbacks": (put("callbacks", value=[1]), "Expected to go on from "),
    "curriculum": (put("callbacks", "LengthCurriculum", value="\x1b"), "Expected to go on from "),
    "averages": (put("averaging_state", value={"n_averaged": "x"}), "Expected to go on from "),
    "names": (put(1, value=2), "Expected names in a checkpoint to be text, but got 1."),
    "other model": (put("hyper_parameters", "task", value="sort"), "Expected 'controller.head.weight' of shape"),
    "other tensors": (put("state_dict", "baseline.weight", value=torch.zeros(1, 8)), "of the recipe's model, but "),
}


@pytest.mark.filterwarnings("ignore:.*Sparse.*:UserWarning")
@pytest.mark.parametrize("case", FORGED)
def test_a_forged_checkpoint_is_told_in_one_line(forge, fit, tmp_path, case):
    change, *expected = FORGED[case]
    forge(change)
    done = fit(tmp_path, "runs/tiny/recipe.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    check_refusal(done, "runs/tiny/checkpoints/last.ckpt", *expected)


def test_what_goes_wrong_later_keeps_its_traceback(forge, fit, tmp_path):
    forge(copy.copy)
    (tmp_path / "broken_callback.py").write_text(
        "from pytorch_lightning import Callback\n"
        "class Broken(Callback):\n"
        "    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):\n"
        "        if batch_idx == 1:\n"
        "            raise ValueError('broken')\n"
    )
    options = ["--ckpt_path", "last", "--trainer.max_epochs", "2"]
    options.append("--trainer.callbacks+=broken_callback.Broken")
    done = fit(tmp_path, "runs/tiny/recipe.yaml", *options, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("ValueError: broken\n")
