"""What the best and the last checkpoint of a run hold, wherever its folder is."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_ham.runs.train
from lightning_ham.hub import TrainedModel
from lightning_ham.runs.checkpoints import WholeCheckpointIO
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.training import EpisodeCounter, HAMModule

BEST, LAST = (Path("checkpoints", f"{name}.ckpt") for name in ("best", "last"))


def checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


class Scored(HAMModule):
    """Is given its scores, and keeps the weights that were validated."""

    scores: tuple[float, ...] = ()
    validated: list[dict[str, torch.Tensor]]

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self.validated.append({name: value.clone() for name, value in self.state_dict().items()})

    def on_validation_epoch_end(self):
        self.log("val/score", self.scores[len(self.validated) - 1])


def train(run_dir: Path, recipe: Path, scores: tuple[float, ...], *options: str, resume: bool = False) -> Scored:
    cli = RecipeCLI(recipe, list(options))
    trainer = lightning_ham.runs.train._make_trainer(cli, run_dir, [EpisodeCounter()])
    module = Scored(**cli.model.hparams)
    module.scores, module.validated = scores, []
    trainer.fit(module, cli.datamodule, ckpt_path=run_dir / LAST if resume else None, weights_only=True)
    return module


def index_of(state: dict[str, torch.Tensor], validated: list[dict[str, torch.Tensor]]) -> int:
    """Which of the validated weights a checkpoint holds."""
    (found,) = (
        index
        for index, other in enumerate(validated)
        if all(torch.equal(value, state[name]) for name, value in other.items())
    )
    return found


@pytest.mark.parametrize("where", ["there", "moved", "copied"])
def test_a_run_keeps_its_best_wherever_its_folder_is(tmp_path, tiny_recipe, where):
    run = tmp_path / "runs" / "tiny"
    before = train(run, tiny_recipe, (0.3, 0.1), "--trainer.max_epochs=2")
    if where != "there":
        other = tmp_path / "elsewhere" / "mine"
        shutil.copytree(run, other)
        if where == "moved":
            shutil.rmtree(run)
        run = other
    train(run, tiny_recipe, (0.2,), "--trainer.max_epochs=3", resume=True)
    assert index_of(checkpoint(run / BEST)["state_dict"], before.validated) == 1
    after = train(run, tiny_recipe, (0.2, 0.1, 0.15), "--trainer.max_epochs=6", resume=True)
    assert index_of(checkpoint(run / BEST)["state_dict"], after.validated) == 1, "as good, and trained longer"
    assert checkpoint(run / LAST)["epoch"] == 5


def test_the_state_of_a_run_does_not_say_where_it_is(tmp_path, tiny_recipe):
    train(tmp_path / "mine", tiny_recipe, (0.3,), "--trainer.max_epochs=1")
    assert str(tmp_path) not in str({**checkpoint(tmp_path / "mine" / LAST), "state_dict": None})


def test_without_its_best_checkpoint_a_run_begins_to_look_for_one_anew(tmp_path, tiny_recipe):
    train(tmp_path, tiny_recipe, (0.1,), "--trainer.max_epochs=1")
    (tmp_path / BEST).unlink()
    after = train(tmp_path, tiny_recipe, (0.3, 0.2, 0.4), "--trainer.max_epochs=4", resume=True)
    assert index_of(checkpoint(tmp_path / BEST)["state_dict"], after.validated) == 1


@pytest.mark.parametrize(
    ("options", "scores", "best"),
    [
        (["--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=5"], (0.2, 0.1), 1),
        (["--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=5"], (0.1, 0.2), 0),
        (["--trainer.val_check_interval=0.75", "--trainer.max_epochs=2"], (0.1, 0.2), 0),  # an update before the end
        (["--trainer.val_check_interval=0.5", "--trainer.max_epochs=2"], (0.4, 0.2, 0.1, 0.3), 2),
        (["--trainer.max_steps=6"], (0.2, 0.1), 0),  # it ends in the middle of an epoch, with no validation
    ],
)
def test_the_best_weights_are_those_that_were_validated(tmp_path, tiny_recipe, options, scores, best):
    module = train(tmp_path, tiny_recipe, scores, *options)
    assert index_of(checkpoint(tmp_path / BEST)["state_dict"], module.validated) == best


@pytest.mark.parametrize("part", ["state_dict", "current_model_state"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, part, value):
    path = tmp_path / "x.ckpt"
    good = {"state_dict": {"w": torch.zeros(2)}, "current_model_state": {"w": torch.zeros(2), "n": torch.ones(1).int()}}
    WholeCheckpointIO().save_checkpoint(good, path)
    bad = {**good, part: {"w": torch.tensor([0.0, value])}}
    with pytest.raises(FloatingPointError, match="Expected finite weights to save, but 'w' holds nan or inf"):
        WholeCheckpointIO().save_checkpoint(bad, path)
    assert torch.equal(checkpoint(path)[part]["w"], torch.zeros(2))
    assert [file.name for file in tmp_path.iterdir()] == ["x.ckpt"]


def test_a_training_that_is_not_finite_any_more_ends_and_keeps_the_last_weights_that_were(fit, tmp_path, tiny_recipe):
    done = fit(tmp_path, tiny_recipe, "--model.schedule.learning_rate", "1e30")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[1:] == [
        "error: Expected finite weights, but got nan or inf at update 2 (epoch 1): the training ends, "
        "runs/tiny/checkpoints/last.ckpt has the last finite weights, and a smaller "
        "--model.schedule.learning_rate may keep them so."
    ]
    run = tmp_path / "runs" / "tiny"
    assert [path.name for path in run.glob("*/*") if path.is_file()] == ["last.ckpt"]
    last = TrainedModel.from_checkpoint(run / LAST)
    assert all(value.isfinite().all() for value in last.state_dict().values())


def test_a_model_that_is_not_finite_is_neither_loaded_nor_saved(tmp_path, tiny_recipe):
    train(tmp_path, tiny_recipe, (0.1,), "--trainer.max_epochs=1")
    state = checkpoint(tmp_path / LAST)
    name = next(iter(state["state_dict"]))
    state["state_dict"][name].view(-1)[0] = float("nan")
    torch.save(state, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=r"bad\.ckpt: Expected finite numbers in '.+', but got nan or inf"):
        TrainedModel.from_checkpoint(tmp_path / "bad.ckpt")
    model = TrainedModel.from_checkpoint(tmp_path / LAST)
    model.save_pretrained(tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("inf")
    with pytest.raises(ValueError, match=r"model: Expected finite numbers in"):
        model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
