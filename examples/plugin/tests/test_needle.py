"""The sampler agrees with the oracle, and the recipe learns with every part of this package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_ham.hub import TrainedModel
from lightning_ham.memory.transforms import make_join
from lightning_ham.tasks import InstanceError, get_task

RECIPE = Path(__file__).parent.parent / "needle.yaml"


def test_samples_are_instances_with_the_oracles_answer():
    task = get_task("needle")
    episodes = task.sample(200, (1, 9), generator=torch.Generator().manual_seed(0))
    for cells, occupied, targets in zip(episodes.inputs, episodes.occupied, episodes.targets, strict=True):
        instance = task.decode_inputs(cells, occupied)
        task.check(instance)
        assert task.decode(targets, cells) == task.oracle(instance)


@pytest.mark.parametrize("wrong", [[], [(1, 0)], [(1, 1), (2, 1)], [(256, 1)], [(1.0, 1)], [1, 2], "12", None])
def test_what_is_no_instance_is_refused(wrong):
    with pytest.raises(InstanceError, match="Expected pairs of a number"):
        get_task("needle").accept(wrong)


def test_join_sees_both_children_and_keeps_reals():
    torch.manual_seed(0)
    left, right = torch.rand(2, 3, 8, requires_grad=True)
    parent = make_join("needle_join", 8, 16)(left, right)
    assert parent.shape == (3, 8)
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(parent.sum(), (left, right)))
    reals = make_join("needle_join", 8, 16, num_reals=2)(left, right)[:, :2]
    assert torch.equal(reals, torch.stack((torch.minimum(left, right)[:, 0], torch.maximum(left, right)[:, 1]), dim=1))


def test_a_model_is_saved_and_loaded(tmp_path):
    model = TrainedModel("needle", "needle_controller", {"controller_size": 4, "leaf_size": 6})
    model.save_pretrained(tmp_path / "ham-needle")
    instance = [(3, 0), (200, 0), (17, 1), (254, 0)]
    assert TrainedModel.from_folder(tmp_path / "ham-needle").solve([instance]) == model.solve([instance])


def test_the_recipe_learns(tmp_path):
    options = ["--trainer.max_epochs", "4", "--data.capacity", "4", "--stop.errors", "null", "--wandb.mode", "disabled"]
    command = [sys.executable, "-m", "lightning_ham.fit", str(RECIPE), *options, "--evaluation.lengths", "[1-4]"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (result,) = json.loads((tmp_path / "runs" / "needle" / "evaluation.json").read_text())["results"]
    assert result["sequence_error"] < 0.05
