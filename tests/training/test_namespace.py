"""Module, data and callbacks work in the Trainers of `pytorch_lightning` and of `lightning.pytorch`."""

import contextlib
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

# lightning_ham.training is imported in functions only: what it is made for is decided when it is imported.
OLD, NEW = "pytorch_lightning", "lightning.pytorch"
VARIABLE = "LIGHTNING_HAM_NAMESPACE"
HIDDEN = {OLD: ["lightning", "lightning.pytorch"], NEW: ["pytorch_lightning", "lightning_fabric"]}
"""What to hide, so that only the other package seems to be installed."""


def trainer_of(lightning: ModuleType, epochs: int):
    from lightning_ham.training import (
        BreakUpGuard,
        EndIfNotFinite,
        EpisodeCounter,
        LengthCurriculum,
        MovingAverage,
        StopAtErrors,
    )

    callbacks = [BreakUpGuard(), LengthCurriculum(1.0), StopAtErrors({"1-4": 0.0}), MovingAverage(0.9)]
    return lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[*callbacks, EndIfNotFinite(), EpisodeCounter()],
        gradient_clip_val=1.0, num_sanity_val_steps=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def module_and_data():
    import torch

    from lightning_ham.training import HAMModule, TaskDataModule

    torch.manual_seed(0)
    module = HAMModule("sort", controller_options={"controller_size": 4, "leaf_size": 4})
    sizes = {"batch_size": 4, "batches_per_epoch": 3, "capacity": 4, "validation_episodes": 8}
    return module, TaskDataModule("sort", validation_lengths=[(1, 4)], **sizes)


def train(lightning: ModuleType, folder: Path) -> dict:
    """Train, test, save, and go on from checkpoints of this package and of the other one; return what came out."""
    from lightning_ham import from_pretrained

    def facts(trainer, module, data) -> dict:
        weights = b"".join(value.numpy().tobytes() for value in module.state_dict().values())
        episodes = trainer.callbacks[-1].episodes
        return {"weights": hashlib.sha256(weights).hexdigest(), "capacity": data.capacity, "episodes": episodes}

    module, data = module_and_data()
    trainer = trainer_of(lightning, 2)
    trainer.fit(module, data)
    mine = folder / f"{lightning.__name__}.ckpt"
    trainer.save_checkpoint(mine)
    results = {"trained": facts(trainer, module, data)}
    results["tested"] = trainer.test(module, data, verbose=False)
    for checkpoint in folder.glob("*.ckpt"):
        module, data = module_and_data()
        trainer = trainer_of(lightning, 3)
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        results[f"resumed {checkpoint.stem}"] = facts(trainer, module, data)
    results["solved"] = from_pretrained(mine).solve([[(3, 1), (1, 2)]])
    return results


def together() -> dict:
    """Import one package after the other; tell what is chosen then, and what is warned of."""
    importlib.import_module(NEW)
    from lightning_ham.training import HAMModule, namespace

    def now() -> list:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            module_and_data()
        return [
            namespace.choose().__name__,
            [str(one.message) for one in caught if "another package" in str(one.message)],
        ]

    results = {"the new one": now()}
    importlib.import_module(OLD)
    results |= {"both": now(), "made for": issubclass(HAMModule, sys.modules[NEW].LightningModule)}
    os.environ[VARIABLE] = NEW
    results["both and the variable"] = now()
    from lightning_ham.fit import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        results["recipe"] = [main(["sort"]), said.getvalue()]
    return results


def situation(name: str, folder: Path) -> dict:
    """What happens in one of the situations."""
    if name == "together":
        return together()
    lightning = name.removeprefix("alone ")
    sys.modules |= dict.fromkeys(HIDDEN[lightning])
    return train(importlib.import_module(lightning), folder)


SITUATIONS = [f"alone {OLD}", f"alone {NEW}", "together"]


def main(folder: Path) -> None:
    """Each situation in a fork of its own, one after the other, with what takes long imported before."""
    import torchmetrics  # noqa: F401

    import lightning_ham.models  # noqa: F401

    for name in SITUATIONS:
        process = os.fork()
        if process == 0:
            (folder / f"{name}.json").write_text(json.dumps(situation(name, folder)))
            sys.stdout.flush()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, name


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("situations")
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment = kept | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in SITUATIONS}


@pytest.mark.slow
def test_both_packages_train_alike_where_the_other_is_not_installed(found):
    old, new = (found[f"alone {name}"] for name in (OLD, NEW))
    assert old["trained"]["episodes"] == 2 * 3 * 4
    assert new["trained"] == old["trained"]
    assert new["tested"] == old["tested"]
    assert old["tested"][0].keys() >= {"test/1-4/sequence_error", "test/1-4/bit_error"}
    assert new["solved"] == old["solved"]
    resumed = old[f"resumed {OLD}"]
    assert resumed["weights"] != old["trained"]["weights"]
    assert resumed["episodes"] == 3 * 3 * 4
    assert new[f"resumed {NEW}"] == resumed
    assert new[f"resumed {OLD}"] == resumed, "each goes on from the other's checkpoints"


@pytest.mark.slow
def test_the_package_that_the_program_has_imported_is_chosen(found):
    together = found["together"]
    assert together["the new one"] == [NEW, []]
    assert together["made for"]
    name, (told,) = together["both"]
    assert name == OLD, "for a program that begins with both"
    assert told == (
        f"lightning_ham was loaded for {NEW}, and this program has imported {OLD} too, whose Trainer refuses modules "
        f"and data of another package. To train with {OLD}.Trainer, import {OLD} before lightning_ham, without {NEW}, "
        f"or set the variable {VARIABLE}={OLD}."
    )
    assert together["both and the variable"] == [NEW, []]


@pytest.mark.slow
def test_recipes_keep_to_their_own_package(found):
    assert found["together"]["recipe"] == [
        2,
        f"error: Expected {OLD}, which recipes are trained with, but this program has loaded lightning_ham for {NEW}: "
        f"train in a process of its own, without the variable {VARIABLE}.\n",
    ]


def test_a_wrong_variable_or_no_lightning_is_told(monkeypatch):
    from lightning_ham.training.namespace import choose

    monkeypatch.setenv(VARIABLE, "lightning")
    with pytest.raises(ValueError, match=f"^Expected the variable {VARIABLE} to be one of {OLD}, {NEW}, but got"):
        choose()
    for name in (OLD, NEW, "lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv(VARIABLE, NEW)
    with pytest.raises(
        ImportError, match=f"^Expected {NEW} to train with, but it is not installed: pip install lightning$"
    ):
        choose()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(
        ImportError, match=f"^Expected {OLD} or {NEW} to train with, .*: pip install pytorch-lightning$"
    ):
        choose()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
