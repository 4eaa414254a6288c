"""A task and a controller of another package: installed as a distribution, named in a recipe, and trained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "ham-oddments"
version = "1.0"

[project.entry-points."lightning_ham.tasks"]
last_first = "ham_oddments:LastFirst"

[project.entry-points."lightning_ham.controllers"]
echo = "ham_oddments:Echo"

[project.entry-points."lightning_ham.estimators"]
left_alone = "ham_oddments:LeftAlone"
"""

SOURCE = '''
import torch
from torch import nn

from lightning_ham.controllers import Rollout
from lightning_ham.memory.attention.reinforce import Reinforce
from lightning_ham.tasks.reverse import Reverse


class LastFirst(Reverse):
    """Put the integers out in reverse order, under another name."""

    name = "last_first"


class LeftAlone(Reinforce):
    """Leaves every leaf as it is."""

    def write(self, access, query, write):
        return access.path[:, -1]


class Echo(nn.Module):
    """Has no memory: says of all inputs together what it can in one linear layer."""

    def __init__(self, input_size: int, output_size: int, width: int = 4) -> None:
        super().__init__()
        self.controller_size = width
        self.accesses_per_output = 1
        self.hidden = nn.Linear(input_size, width)
        self.head = nn.Linear(width, output_size)

    def forward(self, inputs, occupied, timesteps, attention="argmax", generator=None):
        state = torch.tanh(self.hidden((inputs * occupied.unsqueeze(-1)).sum(dim=1)))
        states = state.unsqueeze(1).expand(-1, timesteps, -1)
        none = states.new_zeros(len(inputs), timesteps)
        return Rollout(self.head(states), states, none, none, none.long(), none.unsqueeze(-1)[..., :0])
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder in which the plugin's distribution is installed, by pip and without a network."""
    source = tmp_path_factory.mktemp("source")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "ham_oddments.py").write_text(SOURCE)
    target = tmp_path_factory.mktemp("site")
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", target, source], check=True)
    return target


def run(module: str, *arguments: str, folder: Path, environment: dict[str, str], site: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": os.fspath(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_recipe_trains_a_plugins_task_with_a_plugins_controller(installed, tmp_path, environment):
    recipe = {
        "task": "last_first",
        "model": {"controller": "echo", "controller_options": {"width": 6}, "schedule": {"learning_rate": 0.01}},
        "data": {"batch_size": 8, "batches_per_epoch": 2, "capacity": 4, "validation_lengths": [[1, 4]]},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "evaluation": {"lengths": [[1, 4]], "episodes": 20},
    }
    (tmp_path / "oddments.yaml").write_text(yaml.safe_dump(recipe))
    where = {"folder": tmp_path, "environment": environment, "site": installed}
    run("lightning_ham.fit", "oddments.yaml", **where)

    model = tmp_path / "runs" / "oddments" / "model"
    config = json.loads((model / "config.json").read_text())
    assert (config["task"], config["controller"]) == ("last_first", "echo")
    assert config["controller_options"] == {"width": 6}
    training = json.loads((tmp_path / "runs" / "oddments" / "training.json").read_text())
    assert (training["updates"], training["episodes"]) == (2, 16)

    evaluation = json.loads(run("lightning_ham.evaluate", str(model), "--lengths", "1:4", "--json", **where))
    assert evaluation["controller"] == "echo"
    (tmp_path / "numbers.jsonl").write_text("[7, 1000, 42]\n")
    answer = json.loads(run("lightning_ham.solve", str(model), "numbers.jsonl", **where))
    assert all(0 <= number < 1024 for number in answer)


@pytest.mark.slow
def test_a_recipe_trains_with_a_plugins_estimator(installed, tmp_path, environment):
    recipe = {
        "task": "reverse",
        "model": {"controller_options": {"controller_size": 4, "leaf_size": 4}, "attention": "left_alone"},
        "data": {"batch_size": 8, "batches_per_epoch": 2, "capacity": 4, "validation_lengths": [[1, 4]]},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "evaluation": {"lengths": [[1, 4]], "episodes": 20},
    }
    (tmp_path / "oddments.yaml").write_text(yaml.safe_dump(recipe))
    run("lightning_ham.fit", "oddments.yaml", folder=tmp_path, environment=environment, site=installed)
    resolved = yaml.safe_load((tmp_path / "runs" / "oddments" / "recipe.yaml").read_text())
    assert resolved["model"]["attention"] == "left_alone"


def test_without_the_plugin_its_names_are_unknown(tmp_path, fit):
    (tmp_path / "oddments.yaml").write_text("task: last_first\n")
    done = fit(tmp_path, "oddments.yaml")
    assert done.returncode == 2
    assert "Unknown task 'last_first'" in done.stderr
