"""The keys of a recipe and the types of their values, taken from the classes that a recipe makes."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple

from jsonargparse import get_loader
from pytorch_lightning import Trainer

from lightning_ham.certification import ConsolidationOptions
from lightning_ham.console import as_called
from lightning_ham.foreign import closest_to, quoted, shown
from lightning_ham.runs.recipe.options import EvaluationOptions, HubOptions, WandbOptions
from lightning_ham.runs.recipe.trainer_options import LEFT_OUT
from lightning_ham.runs.recipe.values import RECIPE_VALUES
from lightning_ham.training import BreakUpGuard, HAMModule, LengthCurriculum, StopAtErrors, TaskDataModule
from lightning_ham.training.former_options import what_became_of


class OwnKey(NamedTuple):
    """A key that is not an argument of a class."""

    kind: Any
    default: Any
    help: str


LARGEST_SEED = (1 << 32) - 1
"""NumPy's."""
MOST_THREADS = 1024
"""More than any machine has for one training."""

OWN_KEYS = {
    "seed_everything": OwnKey(int, 1, "Seed of the weights, the episodes and the branches that are sampled."),
    "task": OwnKey(str, None, "Name of the task, for the model and the data."),
    "threads": OwnKey(int, 1, "CPU threads that training and evaluation use."),
    "run_dir": OwnKey(str | None, None, "Run folder; a new one in runs/ if null."),
    "ckpt_path": OwnKey(
        str | None, None, "Checkpoint to resume, or 'last': that of this recipe's newest run folder (or of --run_dir)."
    ),
    "weight_average": OwnKey(float, 0.99, "Decay per update of the averaged weights, which are validated and saved."),
}
"""The task is required, so its default is not used."""

MADE: dict[str, type[Any]] = {
    "model": HAMModule,
    "data": TaskDataModule,
    "curriculum": LengthCurriculum,
    "stop": StopAtErrors,
    "guard": BreakUpGuard,
}
"""The classes that a recipe makes, except the Trainer, by the sections with their arguments."""

OPTIONS: dict[str, type[Any]] = {
    "wandb": WandbOptions,
    "certify": ConsolidationOptions,
    "evaluation": EvaluationOptions,
    "hub": HubOptions,
}
"""Dataclasses that a recipe fills, by section."""

LINKED = {"model.task": "task", "data.task": "task", "model.seed": "seed_everything", "data.seed": "seed_everything"}
"""Keys that copy another key, which sets both the model's and the data's."""


class Given(NamedTuple):
    """A key and its value, from a recipe or an override."""

    key: str
    value: Any
    is_text: bool = False
    """Whether the value is still text from the command line."""


@functools.cache
def key_types() -> Mapping[str, Any]:
    """Return the types of the values of all keys of a recipe."""
    types = {name: key.kind for name, key in OWN_KEYS.items()}
    for section, made in {**MADE, **OPTIONS, "trainer": Trainer}.items():
        types |= _types_in(section, made)
    left_out = {f"trainer.{name}" for name in LEFT_OUT}
    return {key: kind for key, kind in types.items() if key not in LINKED and key not in left_out}


def _types_in(section: str, made: type[Any]) -> dict[str, Any]:
    types: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(made.__init__).items():
        if name == "return":
            continue
        inner = inner_options(kind)
        types |= _types_in(f"{section}.{name}", inner) if inner else {f"{section}.{name}": kind}
    return types


@functools.cache
def made_sections() -> Mapping[str, type[Any]]:
    """Return the classes that a recipe makes by section, including groups of options within their arguments."""
    found = {**MADE, **OPTIONS}
    for section, made in MADE.items():
        for name, kind in typing.get_type_hints(made.__init__).items():
            inner = inner_options(kind)
            if inner:
                found[f"{section}.{name}"] = inner
    return found


def inner_options(kind: Any) -> type[Any] | None:
    """Return the dataclass among the types of an argument, if there is one."""
    return next(
        (member for member in members(kind) if isinstance(member, type) and dataclasses.is_dataclass(member)), None
    )


def members(kind: Any) -> tuple[Any, ...]:
    """Return the types that a value may have: the members of a union, or the type itself."""
    if typing.get_origin(kind) in (typing.Union, UnionType):
        return tuple(member for argument in typing.get_args(kind) for member in members(argument))
    return (kind,)


def is_plain(kind: Any) -> bool:
    """Return whether values of the type are words, numbers or null, without parts."""
    plain = (str, int, float, bool, NoneType)
    return all(member in plain or typing.get_origin(member) is Literal for member in members(kind))


def checked(recipe: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a recipe without its empty sections, which mean defaults.

    Raises:
        ValueError: If it has an unknown key.
    """
    return _checked(recipe, "")


def _checked(section: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    result = {}
    for name, value in section.items():
        key = f"{prefix}{name}"
        if key in key_types():
            result[name] = value
        elif not is_section(key):
            raise ValueError(_unknown(key))
        elif isinstance(value, Mapping):
            result[name] = _checked(value, f"{key}.")
        elif value is not None:
            raise ValueError(f"Expected key {key!r} to hold keys of its own, but got {quoted(value)}.")
    return result


def given_in(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[Given]:
    """Yield what a recipe that is checked says of its keys."""
    for name, value in recipe.items():
        key = f"{prefix}{name}"
        if key in key_types() or not isinstance(value, Mapping):
            yield Given(key, value)
        else:
            yield from given_in(value, f"{key}.")


def given_by(overrides: Iterable[str]) -> Iterator[Given]:
    """Yield what options beside a recipe say of its keys.

    Raises:
        ValueError: If one names a key that there is not, has no value, or is no option at all.
    """
    words = iter(overrides)
    for word in words:
        if not word.startswith("--"):
            raise ValueError(f"unrecognized arguments: {shown(word)}")
        name, sign, text = word[2:].partition("=")
        if name == "print_config":  # which sets nothing
            continue
        key = name.removesuffix("+")  # which adds to a list
        has_parts = any(key.startswith(f"{known}.") and not is_plain(kind) for known, kind in key_types().items())
        if key in LINKED:
            raise ValueError(f'Linked "{key}" must be given via "{LINKED[key]}".')
        if key not in key_types() and not has_parts and not is_section(key):
            raise ValueError(_unknown(key))
        value = text if sign else next(words, None)
        if value is None or (not sign and value.startswith("--")):
            raise ValueError(f"Expected a value for key {key!r}, but got none.")
        section = loaded(value) if is_section(key) else None
        if isinstance(section, Mapping):
            yield from given_in(_checked(section, f"{key}."), f"{key}.")
        else:
            yield Given(key, value, is_text=True)


def loaded(text: str) -> Any:
    """Return the value of text as YAML; the text itself if it is not YAML."""
    try:
        return get_loader(RECIPE_VALUES)(text)
    except ValueError:
        return text


def is_section(key: str) -> bool:
    """Return whether a key holds other keys."""
    return any(known.startswith(f"{key}.") for known in key_types())


def _unknown(key: str) -> str:
    """Return a message about an unknown key."""
    became = what_became_of(key)
    if became:
        return became
    left_out = key.removeprefix("trainer.")
    if left_out in LEFT_OUT:
        return f"Key 'trainer.{left_out}' cannot be set in a recipe: {as_called(LEFT_OUT[left_out])}."
    known = sorted(key_types())
    by_name = {name.rpartition(".")[2]: name for name in known}
    group, _, name = key.rpartition(".")
    here = {other.removeprefix(f"{group}."): other for other in known if group and other.startswith(f"{group}.")}
    groups = {word: word for word in ("sweep", *(other.partition(".")[0] for other in known))}
    close = LINKED.get(key) or by_name.get(name)
    for words in (here, groups, by_name):  # a mistyped name, or group, or name in a wrong group or in none
        close = close or words.get(closest_to(name, words) or "")
    hint = f"did you mean {close!r}?" if close else "see --help for those there are."
    return f"Unknown key {quoted(key)} in the recipe or on the command line; {hint}"
