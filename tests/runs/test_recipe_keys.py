"""Messages about a recipe's keys come from the classes that it makes, not from the parser's library."""

import argparse
import dataclasses
from typing import Any, NoReturn

import pytest
import yaml

from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.recipe.keys import LINKED, key_types
from lightning_ham.runs.recipe.parser import RecipeParser
from lightning_ham.training import ReinforceOptions


def test_the_keys_are_those_that_the_parser_knows(tiny_recipe):
    parser = RecipeCLI(tiny_recipe, []).parser
    known = {action.dest for action in parser._actions if not action.dest.endswith(".help")}
    known |= {f"model.reinforce.{field.name}" for field in dataclasses.fields(ReinforceOptions)}
    known -= {"help", "config", "print_config", "print_shtab", *LINKED}
    groups = {key[:end] for key in known for end, sign in enumerate(key) if sign == "."}
    assert set(key_types()) == known - groups


MISTAKES = {
    "unknown": (
        {"data": {"bach_size": 3}},
        [],
        "Unknown key 'data.bach_size' in the recipe or on the command line; did",
    ),
    "unknown option": (
        {},
        ["--treads=1"],
        "Unknown key 'treads' in the recipe or on the command line; did you mean 't",
    ),
    "unknown option in a group": (
        {},
        ["--model.reinforce.discont", "1"],
        "Unknown key 'model.reinforce.discont' in the",
    ),
    "no option": ({}, ["extra"], "unrecognized arguments: extra"),
    "no value": ({}, ["--threads"], "Expected a value for key 'threads', but got none."),
    "type": ({"data": {"capacity": 1.5}}, [], "Expected key 'data.capacity' to be an integer, but got '1.5'."),
    "type of an option": ({}, ["--threads", "x"], "Expected key 'threads' to be an integer, but got 'x'."),
    "type in a group": (
        {},
        ["--model.supervision={hint_weight: x}"],
        "Expected key 'model.supervision.hint_weight' to be a number, but got 'x'.",
    ),
    "type in a nested group": (
        {"model": {"attention": "reinforce", "reinforce": {"normalize": 3}}},
        [],
        "Expected key 'model.reinforce.normalize' to be true or false, but got '3'.",
    ),
    "type of a seed": ({"seed_everything": "x"}, [], "Expected key 'seed_everything' to be an integer, but got 'x'."),
    "type or null": (
        {},
        ["--trainer.max_epochs=many"],
        "Expected key 'trainer.max_epochs' to be an integer or null, but",
    ),
    "choice": (
        {"wandb": {"mode": "on"}},
        [],
        "Expected key 'wandb.mode' to be one of 'auto', 'online', 'offline', 'disabled', but got 'on'.",
    ),
    "part of a mapping": (
        {"stop": {"errors": {"2-8": "x"}}},
        [],
        "Expected key 'stop.errors.2-8' to be a number, but got 'x'.",
    ),
    "part of a list": (
        {"trainer": {"callbacks": [1]}},
        [],
        "Expected key 'trainer.callbacks' to be a mapping or null, ",
    ),
    "lengths": (
        {"evaluation": {"lengths": [4]}},
        [],
        "Key 'evaluation.lengths': Expected lengths LOW-HIGH, such as 1-32",
    ),
    "null": ({"threads": None}, [], "Expected key 'threads' to be an integer, but got null."),
    "null in a group": (
        {"data": {"batch_size": None}},
        [],
        "Expected key 'data.batch_size' to be an integer, but got nul",
    ),
    "group that is null": ({}, ["--data=null"], "Expected key 'data' to hold keys of its own, but got null."),
    "missing": ({"task": ...}, [], "Expected key 'task' to be a string, but got null."),
    "out of range": (
        {"model": {"schedule": {"learning_rate": -1}}},
        [],
        "Expected key 'model.schedule.learning_rate' to be positive, but got -1",
    ),
    "class": (
        {"trainer": {"callbacks": "lightning_ham.Nothing"}},
        [],
        "Expected key 'trainer.callbacks' to name a class that there is, but got 'lightning_ham.Nothing'.",
    ),
    "class in a list": (
        {"trainer": {"callbacks": [{"class_path": "Timers"}]}},
        [],
        "Expected key 'trainer.callbacks' to name a class that there is, but got 'Timers'.",
    ),
    "argument of a class": (
        {"trainer": {"callbacks": {"class_path": "ModelCheckpoint", "init_args": {"verbose": 3}}}},
        [],
        "Expected key 'trainer.callbacks.verbose' to be true or false, but got '3'.",
    ),
    "unknown argument of a class": (
        {"trainer": {"callbacks": {"class_path": "LearningRateMonitor", "init_args": {"x": 3}}}},
        [],
        "Expected key 'trainer.callbacks' to have the arguments that LearningRateMonitor takes (logging_interval, log",
    ),
    "class that refuses": (
        {"trainer": {"callbacks": {"class_path": "ModelCheckpoint", "init_args": {"every_n_epochs": -1}}}},
        [],
        "Invalid value for every_n_epochs=-1. Must be >= 0",
    ),
}


@pytest.mark.parametrize("is_nonsense", [False, True], ids=["", "nonsense"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_the_library_says_does_not_matter(tiny_recipe, tmp_path, monkeypatch, mistake, is_nonsense):
    changes, overrides, expected = MISTAKES[mistake]
    if is_nonsense:
        speak_nonsense(monkeypatch)
    content = yaml.safe_load(tiny_recipe.read_text())
    for key, value in changes.items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not ...}))
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        RecipeCLI(recipe, overrides)
    assert str(raised.value).startswith(expected)


def speak_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the library complain in words that mean nothing."""
    validate, instantiate = RecipeParser.validate, RecipeParser.instantiate

    def error(parser: RecipeParser, message: str, ex: Exception | None = None) -> NoReturn:
        raise argparse.ArgumentError(None, "xyzzy") from ex

    def nonsense(method: Any, *kinds: type[Exception]) -> Any:
        def speaking(*arguments: Any, **options: Any) -> Any:
            try:
                return method(*arguments, **options)
            except kinds as error:
                raise kinds[0]("xyzzy") from error

        return speaking

    monkeypatch.setattr(RecipeParser, "error", error)
    monkeypatch.setattr(RecipeParser, "validate", nonsense(validate, TypeError, KeyError))
    monkeypatch.setattr(RecipeParser, "instantiate", nonsense(instantiate, ValueError))
    monkeypatch.setattr(argparse.ArgumentError, "__str__", lambda error: "xyzzy")


def test_what_none_of_this_explains_is_told_in_the_librarys_words(tiny_recipe):
    with pytest.raises(ValueError, match=r"^Expected values that its keys take, but got: .+"):
        RecipeCLI(tiny_recipe, ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.every_n_epochs=x"])
