"""The JSON Schema of recipes: what it refuses, `fit` refuses, and what `fit` refuses of one key, it refuses, too."""

import copy
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lightning_ham import schema
from lightning_ham.runs.recipe.catalog import RECIPES
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.recipe.file import read_recipe
from lightning_ham.runs.recipe.keys import key_types
from lightning_ham.runs.recipe.schema import recipe_schema
from lightning_ham.runs.recipe.values import RECIPE_VALUES
from lightning_ham.runs.tracking import check_settings

ROOT = Path(__file__).parent.parent
PATHS = sorted(RECIPES.rglob("*.yaml"))
each_recipe = pytest.mark.parametrize("path", PATHS, ids=[path.relative_to(RECIPES).as_posix() for path in PATHS])


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    made = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def pinned(package: str) -> str:
    (version,) = re.findall(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return version


@pytest.mark.skipif(
    any(importlib.metadata.version(name) != pinned(name) for name in ("pytorch-lightning", "jsonargparse")),
    reason="the file has the descriptions of the Trainer of the pinned versions",
)
def test_the_file_beside_the_recipes_is_what_the_command_prints(capsys):
    assert schema.main([]) == 0
    printed = capsys.readouterr().out
    file = (RECIPES / "schema.json").read_text(encoding="utf-8")
    assert file == printed, "write it anew: python -m lightning_ham.schema > recipes/schema.json"


@each_recipe
def test_a_shipped_recipe_names_it_in_its_first_line_and_is_valid(path, validator):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named
    assert (path.parent / named[1]).resolve() == (RECIPES / "schema.json").resolve()
    validator.validate(read_recipe(path, RECIPE_VALUES))


@pytest.mark.parametrize("name", ["merge", "stack", "paper/search"])
def test_a_resolved_recipe_is_valid(name, validator):
    validator.validate(yaml.safe_load(RecipeCLI(RECIPES / f"{name}.yaml", []).resolved()))


def leaves(node: dict[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    found = {}
    for name, inner in node["properties"].items():
        key = f"{prefix}{name}"
        found |= leaves(inner, f"{key}.") if inner.get("additionalProperties") is False else {key: inner}
    return found


def test_it_has_every_key_with_a_description_and_its_default(validator):
    found = leaves(validator.schema)
    assert set(found) == {*key_types(), "sweep"}
    assert [key for key, inner in found.items() if not inner.get("description")] == []
    cli = RecipeCLI(RECIPES / "reverse.yaml", [])
    told = {key: inner["default"] for key, inner in found.items() if "default" in inner}
    assert told["data.validation_lengths"] == ["1-32", "33-128"]
    for key, default in told.items():
        if not key.startswith("model.reinforce.") and "lengths" not in key:
            assert default == cli.parser.get_default(key), key


RECIPE = {
    "task": "search",
    "model": {"controller_options": {"leaf_size": 8}, "schedule": {"learning_rate": 0.01}},
    "data": {"batch_size": 16, "capacity": 8, "validation_lengths": ["2-8"]},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    "stop": {"errors": {"2-8": 0.5}},
    "evaluation": {"lengths": [[2, 8]]},
}


def mutated(key: str, value: Any, recipe: dict[str, Any] | None = None) -> dict[str, Any]:
    result = copy.deepcopy(RECIPE if recipe is None else recipe)
    *path, name = key.split("/") if "/" in key else key.split(".")
    section = result
    for part in path:
        section = section.setdefault(part, {})
    section[name] = value
    return result


@pytest.fixture
def is_taken(tmp_path) -> Callable[[dict[str, Any]], bool]:
    """Whether `fit` would train from a recipe."""

    def is_taken(recipe: dict[str, Any]) -> bool:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        try:
            cli = RecipeCLI(path, [])
            check_settings("disabled", cli.config.wandb.project, cli.config.wandb.entity)
            cli.make_trainer(tmp_path, [], [], [])
        except (ImportError, OSError, ValueError):
            return False
        return True

    return is_taken


RIGHT = [
    ("seed_everything", 0),
    ("model", None),
    ("model.controller", "lstm"),
    ("model.controller_options", None),
    ("model.controller_options.hidden_size", 16),
    ("model.controller_options.temperature", 1.0),
    ("model.attention", "reinforce"),
    ("data.capacity", 16),
    ("data.validation_lengths", [[2, 8], "9:16", "17-32"]),
    ("stop.errors", {"2:8": 0}),
    ("evaluation.episodes", [100]),
    ("trainer.max_epochs", -1),
    ("trainer.max_time", "00:00:10:00"),
    ("trainer.max_time", {"minutes": 10}),
    ("trainer.limit_train_batches", 0.5),
    ("trainer.val_check_interval", 2),
    ("trainer.callbacks", [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/score"}}]),
    ("wandb.mode", "offline"),
]
WRONG = [
    ("taks", "search"),
    ("task", "serach"),
    ("model.task", "search"),
    ("learning_rate", 0.1),
    ("model.learning_rate", 0.1),
    ("model.schedule.learning_rat", 0.1),
    ("model.schedule.learning_rate", 0),
    ("model.schedule.learning_rate", "fast"),
    ("model.attention", "argmax"),
    ("model.attention", None),
    ("model.controller", "lstm_hma"),
    ("model.controller_options.controller_sizes", 8),
    ("model.controller_options.controller_size", 0),
    ("model.controller_options.controller_size", "eight"),
    ("model.controller_options.join", "gate"),
    ("model.controller_options.temperature", 0.5),
    ("model.exploration.entropy_bonus", -0.1),
    ("model.supervision.guided_fraction", 1.5),
    ("model.supervision.until_error", 1),
    ("model.reinforce.baseline", "mean"),
    ("data.batch_size", 0),
    ("data.batch_size", 1.5),
    ("data.batch_size", True),
    ("data.batch_size", None),
    ("data.capacity", 24),
    ("data.hard_fraction", 2),
    ("data.validation_lengths", "1-32"),
    ("data.validation_lengths", ["1..32"]),
    ("data.validation_lengths", [[1, 2, 3]]),
    ("stop.errors", 0.1),
    ("stop.errors", {"2-8": 2}),
    ("stop.patience", 0),
    ("guard.slower", 0),
    ("weight_average", 1),
    ("seed_everything", -1),
    ("seed_everything", True),
    ("stop.errors", {"short": 0.1}),
    ("evaluation.lengths", []),
    ("evaluation.episodes", "many"),
    ("evaluation.episodes", 0),
    ("evaluation.episodes", [0]),
    ("hub.repo_id", "model"),
    ("trainer.max_epoch", 3),
    ("trainer.max_epochs", 0),
    ("trainer.accumulate_grad_batches", 0),
    ("trainer.gradient_clip_val", -1),
    ("trainer.precision", "64-true"),
    ("trainer.fast_dev_run", True),
    ("trainer.logger", False),
    ("trainer.logger", 3),
    ("trainer.max_time", "10 minutes"),
    ("trainer.max_time", {"minute": 10}),
    ("trainer.limit_train_batches", 1.5),
    ("trainer.limit_val_batches", -1),
    ("trainer.callbacks", 3),
    ("wandb.mode", "on"),
    ("wandb.project", ""),
    ("hub.private", "never"),
    ("trainer.val_check_interval", 1.5),
    ("trainer.gradient_clip_algorithm", "norms"),
    ("hub", "me/model"),
]


def of_case(case: tuple[str, Any]) -> str:
    return f"{case[0]}={json.dumps(case[1])}"


@pytest.mark.parametrize("case", RIGHT, ids=of_case)
def test_what_fit_takes_is_valid(case, validator, is_taken):
    recipe = mutated(*case)
    if case == ("model.controller", "lstm"):
        del recipe["model"]["controller_options"]
    assert (is_taken(recipe), [error.message for error in validator.iter_errors(recipe)]) == (True, [])


@pytest.mark.parametrize("case", WRONG, ids=of_case)
def test_what_fit_refuses_is_invalid_and_the_error_names_the_key(case, validator, is_taken):
    recipe = mutated(*case)
    assert not is_taken(recipe)
    errors = list(validator.iter_errors(recipe))
    assert errors
    key = case[0].split(".")
    assert any(list(error.absolute_path)[: len(key)] == key or key[-1] in error.message for error in errors), [
        error.message for error in errors
    ]


def test_without_a_task_it_is_invalid(validator):
    assert [error.message for error in validator.iter_errors({})] == ["'task' is a required property"]


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Tasks, controllers and estimators of an installed package; one of the controllers cannot be loaded."""
    (tmp_path / "oddments-1.0.dist-info").mkdir()
    (tmp_path / "oddments-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: oddments\nVersion: 1.0\n"
    )
    (tmp_path / "oddments-1.0.dist-info" / "entry_points.txt").write_text(
        "[lightning_ham.tasks]\nlast_first = oddments_of_schema:LastFirst\n"
        "[lightning_ham.controllers]\necho = oddments_of_schema:Echo\nbroken = oddments_of_schema:Missing\n"
    )
    (tmp_path / "oddments_of_schema.py").write_text(
        "class Echo:\n"
        "    '''Say it again.\n\n"
        "    Args:\n"
        "        width: How wide.\n"
        "    '''\n\n"
        "    def __init__(self, input_size, output_size, width: int = 4, free=None):\n"
        "        pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("oddments_of_schema", None)


def test_tasks_and_controllers_of_other_packages_are_in_it(plugins):
    validator = jsonschema.Draft202012Validator(recipe_schema())

    def complaints(options: Any, controller: str = "echo") -> list[str]:
        model = {"controller": controller, "controller_options": options}
        return [error.message for error in validator.iter_errors({"task": "last_first", "model": model})]

    assert complaints({"width": 5, "free": "anything"}) == []
    assert complaints({"widht": 5}) == [
        "Additional properties are not allowed ('widht' was unexpected)",
    ]
    assert complaints({"width": "wide"}) == ["'wide' is not of type 'integer'"]
    assert complaints({"what": "nobody knows"}, "broken") == []
    assert "How wide." in json.dumps(validator.schema)
