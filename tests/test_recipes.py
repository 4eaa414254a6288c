"""The shipped recipes: each can be built, says what it is for, and what to expect of it."""

import functools
import json
import re
from pathlib import Path

import pytest
import yaml
from jsonargparse import get_loader

from lightning_ham.hub.supervision import in_words, supervision
from lightning_ham.runs.recipe.catalog import RECIPES, find_recipe, recipe_name, recipe_names
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.recipe.values import RECIPE_VALUES
from lightning_ham.tasks import task_names

ROOT = Path(__file__).parent.parent
PATHS = sorted(RECIPES.rglob("*.yaml"))
each_recipe = pytest.mark.parametrize("path", PATHS, ids=[path.relative_to(RECIPES).as_posix() for path in PATHS])


def header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    first_key = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:first_key])


def test_every_sequence_task_has_its_recipe():
    assert {"reverse", "search", "merge", "sort", "add"} <= set(recipe_names())
    assert sorted(find_recipe(name) for name in recipe_names()) == PATHS
    assert [name.count("/") for name in recipe_names()] == sorted(name.count("/") for name in recipe_names())


def test_the_papers_own_method_has_its_recipes():
    assert {f"paper/{task}" for task in ("reverse", "search", "merge", "sort", "add")} <= set(recipe_names())
    assert {"paper/reverse-soft", "paper/sort-soft"} <= set(recipe_names())
    for name in recipe_names():
        if not name.startswith("paper/"):
            continue
        cli = built(find_recipe(name))
        module, data = cli.model, cli.datamodule
        assert recipe_name(find_recipe(name)) == name
        assert name.removeprefix("paper/").removesuffix("-soft") == data.task.name
        assert module.attention == ("soft" if name.endswith("-soft") else "reinforce")
        if module.attention == "reinforce":
            assert (module.reinforce.baseline, module.reinforce.rollouts) == ("learned", 1)
            bonus = module.exploration.entropy_bonus
            assert bonus > bonus * module.exploration.final_entropy_bonus > 0
        options = module.model.controller_options
        assert [options[name] for name in ("controller_size", "leaf_size", "join", "readout")] == [
            20,
            20,
            "mlp",
            "state",
        ]
        assert (data.batch_size, data.hard_fraction, cli.config.weight_average) == (50, 0, 0)
        assert cli.config.trainer.gradient_clip_val == 5
        assert cli.config.trainer.max_epochs * data.batches_per_epoch == 100_000


def test_a_recipe_that_is_not_shipped_is_called_by_its_file(tmp_path):
    assert recipe_name(tmp_path / "mine.yaml") == "mine"


@functools.cache
def built(path: Path) -> RecipeCLI:
    """A recipe without overrides."""
    return RecipeCLI(path, [])


@each_recipe
def test_it_builds_and_its_resolved_form_is_the_same_recipe(path, tmp_path):
    cli = built(path)
    assert cli.config.task in task_names()
    assert cli.model.model.task_name == cli.datamodule.task.name == cli.config.task
    assert cli.config.stop.errors, "a recipe without a bar does not end when it has learned"

    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(cli.resolved())
    again = RecipeCLI(resolved, [])
    assert again.resolved() == cli.resolved()
    written, read = yaml.safe_load(path.read_text()), yaml.safe_load(cli.resolved())
    assert (
        read["data"].items()
        >= {key: value for key, value in written["data"].items() if key != "validation_lengths"}.items()
    )


@pytest.mark.parametrize("typed", ["[2-8, 9-16]", "[2:8, 9:16]", "[[2, 8], 9-16]", "['2:8', [9, 16]]"])
def test_lengths_may_be_typed_in_several_ways_and_are_written_in_one(typed, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"task: search\ndata: {{validation_lengths: {typed}}}\nevaluation: {{lengths: {typed}}}\n")
    in_file = RecipeCLI(recipe, ["--stop.errors", "{2:8: 0.1}"])
    recipe.write_text("task: search\nstop: {errors: {2:8: 0.1}}\n")
    overridden = RecipeCLI(recipe, ["--data.validation_lengths", typed, "--evaluation.lengths", typed])
    for cli in (in_file, overridden):
        assert cli.datamodule.validation_lengths == cli.config.evaluation.lengths == [(2, 8), (9, 16)]
        assert cli.config_init["stop"].errors == {"2-8": 0.1}
        assert cli.datamodule.hparams["validation_lengths"] == [(2, 8), (9, 16)]
        assert {type(lengths) for lengths in cli.datamodule.hparams["validation_lengths"]} == {tuple}, "plain data"
        written = yaml.safe_load(cli.resolved())
        assert written["data"]["validation_lengths"] == written["evaluation"]["lengths"] == ["2-8", "9-16"]


def test_numbers_in_recipes_are_those_of_jsonargparse():
    values = (
        "1e-4 .5 -3 0x1f 010 1_000 .inf -.inf true null ~ 12e03 1. 33:128 2020-01-01 [1,2e3,x] {a:1} {epoch} a: 1-32"
    )
    for value in values.split():
        assert repr(get_loader(RECIPE_VALUES)(value)) == repr(get_loader("yaml")(value)), value


@each_recipe
def test_its_header_says_what_to_expect(path):
    text = header(path)
    name = path.relative_to(RECIPES).with_suffix("").as_posix()
    command = f"python -m lightning_ham.fit recipes/{name}.yaml"
    assert "arXiv 1602.03218" in text
    assert f"Train:     {command}\n" in text
    override = re.search(rf"Override:  {command} (--\S+ \S+)\n", text)
    assert override, "no example of an override"
    RecipeCLI(path, override[1].split())  # it is a valid one

    seed = re.search(r"Seed:      (\d+)\n", text)
    assert seed
    cli = built(path)
    assert int(seed[1]) == cli.config.seed_everything
    told = re.search(r"Supervision: (.+)\n", text)
    assert told, "it does not say what training is told"
    assert told[1] == in_words(supervision(cli.datamodule.task, yaml.safe_load(cli.resolved())))
    expected = text.partition("Expected:")[2]
    measured = first_seed(name)
    for lengths, result in zip(("1-32", "33-128"), measured["results"], strict=False):
        stated = re.search(rf"([\d,]+) of 10,000 wrong at lengths {lengths}\b", expected)
        assert stated, f"no error at lengths {lengths}"
        assert (int(stated[1].replace(",", "")), 10_000) == (result["wrong_sequences"], result["episodes"])
    seconds = re.search(r"in (\d+) s\b", expected)
    assert seconds, "no training time"
    assert int(seconds[1]) == round(measured["seconds"])
    assert "cores" in expected, "no machine"


def first_seed(name: str) -> dict:
    """The measured result of a recipe with its named seed."""
    for path in (ROOT / "results").glob("*.json"):
        results = json.loads(path.read_text())
        if results["recipe"] == name and not results["overrides"]:
            return results["runs"][0]
    raise AssertionError(f"nothing was measured of {name}")
