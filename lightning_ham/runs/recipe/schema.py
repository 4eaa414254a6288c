"""A JSON Schema of recipes, with which an editor completes and checks them: made from the parser and the checks."""

from __future__ import annotations

import datetime
import typing
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal

from pytorch_lightning import Trainer

from lightning_ham.arguments import LARGEST_SIZE, noting_bounds
from lightning_ham.controllers import complete_options, controller_class, controller_names, make_controller
from lightning_ham.runs.recipe.described import described_keys, described_options, described_sections
from lightning_ham.runs.recipe.keys import LARGEST_SEED, MOST_THREADS, made_sections, members
from lightning_ham.runs.recipe.parser import Described
from lightning_ham.runs.recipe.space import SWEEP
from lightning_ham.runs.recipe.trainer_options import LEFT_OUT, PRECISIONS, check_options
from lightning_ham.tasks import Lengths, task_names

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The version of JSON Schema in which the schema is written."""

_PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}
_WRITTEN_LENGTHS = r"^\s*[0-9]{1,18}[-:][0-9]{1,18}\s*$"
_LENGTHS = {
    "anyOf": [
        {"type": "string", "pattern": _WRITTEN_LENGTHS},
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
    ]
}
_POWERS_OF_TWO = {"enum": [1 << exponent for exponent in range(LARGEST_SIZE.bit_length())]}
_SHARES = {
    "propertyNames": {"pattern": _WRITTEN_LENGTHS},
    "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
}
_BATCHES: dict[str, Any] = {"exclusiveMinimum": 0, "allOf": [{"anyOf": [{"maximum": 1}, {"multipleOf": 1}]}]}
_DURATION = {
    "pattern": r"^\s*[0-9]+:[0-9]{2}:[0-9]{2}:[0-9]{2}\s*$",
    "propertyNames": {"enum": ["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds"]},
    "minProperties": 1,
}
_A_CLASS = {"$ref": "#/$defs/class"}
_CLASS = {
    "description": "A class by its import path, and its arguments.",
    "type": "object",
    "properties": {
        "class_path": {"type": "string"},
        "init_args": {"type": "object"},
        "dict_kwargs": {"type": "object"},
    },
    "required": ["class_path"],
    "additionalProperties": False,
}
_NUMBER = {"type": "number"}
_SPACE = {
    "type": ["object", "null"],
    "additionalProperties": {
        "anyOf": [
            {
                "type": "object",
                "properties": {"low": _NUMBER, "high": _NUMBER, "log": {"type": "boolean"}, "step": _NUMBER},
                "required": ["low", "high"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"choices": {"type": "array", "minItems": 1}},
                "required": ["choices"],
                "additionalProperties": False,
            },
            {"$ref": "#/$defs/space"},
        ]
    },
}

_ANY_TASK = "search"
"""A task with which to ask the module and the data for the bounds of their arguments."""


def recipe_schema() -> dict[str, Any]:
    """Return the schema: keys, types, choices, bounds, defaults and descriptions.

    It names the tasks, controllers and estimators that are installed, other packages' too. It says nothing of what
    depends on several keys, except the options of a controller.
    """
    root = _section("A recipe for lightning_ham: what is trained, and how.")
    keys, descriptions, bounds = described_keys(), described_sections(), _bounds()
    for key, described in keys.items():
        *path, name = key.split(".")
        section = root
        for depth in range(len(path)):
            inner = ".".join(path[: depth + 1])
            section = section["properties"].setdefault(path[depth], _section(descriptions.get(inner, ""), or_null=True))
        section["properties"][name] = _value(described) | bounds.get(key, {})
    root["properties"]["model"]["allOf"] = [
        _options_of(name, is_default=name == keys["model.controller"].default) for name in controller_names()
    ]
    root["properties"][SWEEP] = _SPACE | {
        "description": "Between which values a sweep searches for each key; a training ignores it."
    }
    return {
        "$schema": DIALECT,
        "title": "lightning_ham recipe",
        **root,
        "required": ["task"],
        "$defs": {"class": _CLASS, "space": _SPACE},
    }


def _section(description: str, *, or_null: bool = False) -> dict[str, Any]:
    """Return a section without keys; an empty one in a recipe is null."""
    text = {"description": description} if description else {}
    kind = ["object", "null"] if or_null else "object"
    return {"type": kind, **text, "properties": {}, "additionalProperties": False}


def _value(described: Described) -> dict[str, Any]:
    """Return the schema of a key's values."""
    text = {"description": described.description} if described.description else {}
    default = _plain(described.default)
    is_told = default is not None or NoneType in members(described.kind)
    return {**_of(described.kind), **text, **({"default": default} if is_told else {})}


def _plain(value: Any) -> Any:
    """Return a default as in a recipe."""
    if isinstance(value, Lengths):
        return str(value)
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _of(kind: Any) -> dict[str, Any]:
    """Return the schema of a type.

    >>> _of(int | None), _of(Literal["a", "b"] | None)
    ({'type': ['integer', 'null']}, {'enum': ['a', 'b', None]})
    >>> _of(int | list[int])
    {'anyOf': [{'type': 'integer'}, {'type': 'array', 'items': {'type': 'integer'}}]}
    """
    kinds = members(kind)
    if Any in kinds:
        return {}
    if Lengths in kinds:  # pairs and text are its other forms
        return _LENGTHS
    choices = [choice for member in kinds if typing.get_origin(member) is Literal for choice in member.__args__]
    plain = [member for member in kinds if member in _PLAIN]
    others = [_of_other(member) for member in kinds if member not in plain and typing.get_origin(member) is not Literal]
    found = [other for position, other in enumerate(others) if other and other not in others[:position]]
    if _A_CLASS in found and str not in plain:
        plain.insert(0, str)  # its name alone
    if choices:
        found.insert(0, {"enum": [*choices, *([None] if NoneType in plain else [])]})
        plain = [member for member in plain if member is not NoneType]
    if plain:
        types = [_PLAIN[member] for member in plain]
        found.insert(0, {"type": types[0] if len(types) == 1 else types})
    return found[0] if len(found) == 1 else {"anyOf": found}


def _of_other(kind: Any) -> dict[str, Any]:
    """Return the schema of a list, a mapping or a class; empty for a duration, whose other forms are types, too."""
    if kind is datetime.timedelta:
        return {}
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (list, tuple, Sequence, Iterable):
        return {"type": "array", "items": _of(parts[0])}
    if origin in (dict, Mapping):
        values = _of(parts[1])
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    return _A_CLASS


def _bounds() -> dict[str, dict[str, Any]]:
    """Return what is asked of values beside their types, by key."""
    found: dict[str, dict[str, Any]] = {}
    for section, made in made_sections().items():
        with noting_bounds() as noted:
            made(**({"task": _ANY_TASK} if section in ("model", "data") else {}))
        found |= {f"{section}.{name}": bounds for name, bounds in noted.items()}
    with noting_bounds() as noted:
        names = [name for name in typing.get_type_hints(Trainer.__init__) if name not in LEFT_OUT]
        check_options(dict.fromkeys(names, 1) | {"max_time": None})
    found |= {f"trainer.{name}": bounds for name, bounds in noted.items()}
    return found | {
        "task": {"enum": task_names()},
        "seed_everything": {"minimum": 0, "maximum": LARGEST_SEED},
        "threads": {"minimum": 1, "maximum": MOST_THREADS},
        "weight_average": {"minimum": 0, "exclusiveMaximum": 1},
        "model.reinforce.rollouts": {"minimum": 1},
        "model.controller": {"enum": controller_names()},
        "data.capacity": _POWERS_OF_TWO,
        "data.start_capacity": _POWERS_OF_TWO,
        "stop.errors": _SHARES,
        "evaluation.lengths": {"minItems": 1},
        "evaluation.episodes": {"minimum": 1, "minItems": 1, "items": {"minimum": 1}},
        "hub.repo_id": {"pattern": r"^[^/\s]+/[^/\s]+$"},
        "trainer.max_epochs": {"minimum": -1, "not": {"const": 0}},
        "trainer.max_steps": {"minimum": -1, "not": {"const": 0}},
        "trainer.logger": {"not": {"type": "boolean"}},
        "trainer.max_time": _DURATION,
        "trainer.limit_train_batches": _BATCHES,
        "trainer.limit_val_batches": {"minimum": 0, "allOf": _BATCHES["allOf"]},
        "trainer.val_check_interval": {**_DURATION, **_BATCHES},
        "trainer.gradient_clip_algorithm": {"enum": ["norm", "value", None]},
        "trainer.precision": {"enum": [*PRECISIONS, None]},
        "wandb.project": {"minLength": 1},
    }


def _options_of(controller: str, *, is_default: bool) -> dict[str, Any]:
    """Return the condition that a controller of this name has its own options."""
    is_chosen: dict[str, Any] = {"properties": {"controller": {"const": controller}}}
    if not is_default:
        is_chosen["required"] = ["controller"]
    return {"if": is_chosen, "then": {"properties": {"controller_options": _controller_options(controller)}}}


def _controller_options(controller: str) -> dict[str, Any]:
    """Return the schema of the options of a controller; any, if its package cannot be loaded."""
    try:
        described, made = described_options(controller), controller_class(controller)
    except ImportError:
        return {}
    with noting_bounds() as noted:
        try:
            make_controller(controller, 1, 1, complete_options(controller, {}))
        except Exception:  # one of another package may need options, or other sizes: then its bounds stay unknown
            noted.clear()
    properties = {name: _value(known) | noted.get(name, {}) for name, known in described.items()}
    gone: Mapping[str, Any] = getattr(made, "gone_options", {})
    properties |= {name: {"const": value, "deprecated": True} for name, value in gone.items()}
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
