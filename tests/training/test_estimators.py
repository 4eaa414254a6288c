"""An estimator of another package: named by its entry point alone, it trains in every engine that can run it."""

import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from lightning_ham.controllers import LSTMHAM, Rollout
from lightning_ham.memory import Engine
from lightning_ham.memory.attention import attention_modes, get_estimator, training_modes
from lightning_ham.training import HAMModule, TaskDataModule
from lightning_ham.training.unused import UnusedOptionsWarning

PLUGIN = """
from lightning_ham.memory.attention.reinforce import Reinforce


class ReadOnly(Reinforce):
    'Samples every branch, and leaves every leaf as it is.'

    def write(self, access, query, write):
        return access.path[:, -1]


class ForShow(Reinforce):
    trains = False
"""
ENGINES: list[Engine] = ["reference", "sparse", "auto"]
BUILT_IN = ["reinforce", "straight_through", "straight_through_write", "soft", "argmax"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "ham_estimators-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ham_estimators\nVersion: 1.0\n")
    points = ("[lightning_ham.estimators]", "read_only = ham_estimators:ReadOnly", "for_show = ham_estimators:ForShow")
    (info / "entry_points.txt").write_text("\n".join(points))
    (tmp_path / "ham_estimators.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ham_estimators", raising=False)


def rollout(engine: Engine, mode: str, batch: int = 300) -> Rollout:
    torch.manual_seed(0)
    model = LSTMHAM(3, 2, controller_size=6, leaf_size=5)
    model.memory.engine = engine
    inputs, occupied = torch.rand(batch, 8, 3), torch.ones(batch, 8, dtype=torch.bool)
    return model(inputs, occupied, 4, mode, torch.Generator().manual_seed(1))


def test_without_the_package_its_name_is_unknown() -> None:
    assert attention_modes() == BUILT_IN
    with pytest.raises(ValueError, match=r"^Expected argument `attention` to be one of .*, but got 'read_only'\.$"):
        get_estimator("read_only")


def test_its_name_is_known_beside_the_built_in_ones(installed: None) -> None:
    assert attention_modes() == [*BUILT_IN, "for_show", "read_only"]
    assert training_modes() == [*BUILT_IN[:4], "for_show", "read_only"]
    assert get_estimator("read_only") is get_estimator("read_only")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_in_plain_pytorch_runs_it_and_auto_falls_back(installed: None, engine: Engine) -> None:
    got, expected = rollout(engine, "read_only"), rollout("reference", "read_only")
    torch.testing.assert_close(got, expected)
    assert not torch.equal(got.outputs, rollout(engine, "reinforce").outputs), "a write would tell"


def test_compiled_loops_say_that_they_do_not_know_it(installed: None) -> None:
    message = r"^The engine 'fused' cannot run this: attention 'read_only' is none that compiled loops know\. Choose"
    with pytest.raises(ValueError, match=message):
        rollout("fused", "read_only")


@pytest.mark.parametrize("engine", ENGINES)
def test_it_trains(installed: None, engine: Engine) -> None:
    torch.manual_seed(0)
    options = {"controller_size": 4, "leaf_size": 4}
    module = HAMModule("reverse", attention="read_only", engine=engine, controller_options=options)
    assert module.reinforce is not None, "it learns from rewards"
    data = TaskDataModule("reverse", batch_size=80, batches_per_epoch=2, capacity=4, start_capacity=4)
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", max_steps=2, limit_val_batches=0, logger=False, **quiet).fit(module, data)
    changed = {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}
    assert {"model.controller.memory.search.out.weight", "baseline.weight"} <= changed
    assert "model.controller.memory.write_leaf.leaf.weight" not in changed, "it writes nothing"


def test_what_it_does_not_use_is_told(installed: None) -> None:
    with pytest.warns(UnusedOptionsWarning, match="'query_share' .only straight-through attentions use it, not 'read"):
        HAMModule("reverse", attention="read_only", query_share=0.5)


def test_one_that_does_not_train_is_refused(installed: None) -> None:
    with pytest.raises(
        ValueError, match=r"^Expected argument `attention` to be one that trains, but got 'for_show'\.$"
    ):
        HAMModule("reverse", attention="for_show")
