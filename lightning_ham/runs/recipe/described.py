"""What is known of a recipe's keys, for people and editors: types, defaults and descriptions, from its parser."""

from __future__ import annotations

import inspect
import typing
from typing import Any, Literal

from jsonargparse import set_parsing_settings

from lightning_ham.controllers import controller_class, controller_names
from lightning_ham.runs.recipe.keys import key_types, made_sections, members
from lightning_ham.runs.recipe.parser import Described, RecipeParser, add_keys, without_markup
from lightning_ham.runs.recipe.values import RECIPE_VALUES
from lightning_ham.tasks import task_names

_SIZES = 2
"""The first arguments of a controller, which the task gives."""


def described_keys() -> dict[str, Described]:
    """Return what is known of every key of a recipe, by its full name, such as ``data.batch_size``."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = RecipeParser(parser_mode=RECIPE_VALUES)
    add_keys(parser)
    described = parser.described()
    for section, made in made_sections().items():  # of a group that may be null, the parser knows only the group
        if section in described:
            group = RecipeParser(parser_mode=RECIPE_VALUES)
            group.add_class_arguments(made, section)
            described |= group.described()
    return {key: described[key]._replace(kind=kind) for key, kind in key_types().items()}


def choices(key: str, kind: Any) -> list[str] | None:
    """Return the words that a key takes on a command line, in their order; None if there are too many to name."""
    named = {"task": task_names, "model.controller": controller_names}
    if key in named:
        return named[key]()
    words: list[str] = []
    for member in members(kind):
        if member is bool:
            words += ["true", "false"]
        elif typing.get_origin(member) is Literal:
            words += map(str, typing.get_args(member))
    return words or None


def described_sections() -> dict[str, str]:
    """Return what the sections of a recipe are for, by their names."""
    parser = RecipeParser(parser_mode=RECIPE_VALUES)
    add_keys(parser)
    return {section: without_markup(group.title or "") for section, group in (parser.groups or {}).items()}


def described_options(controller: str) -> dict[str, Described]:
    """Return what is known of the options of a controller, by their names.

    Raises:
        ImportError: If the controller is of another package and cannot be loaded.
    """
    made = controller_class(controller)
    sizes = list(inspect.signature(made).parameters)[:_SIZES]
    parser = RecipeParser(parser_mode=RECIPE_VALUES)
    add = parser.add_class_arguments if inspect.isclass(made) else parser.add_function_arguments
    add(made, "options", skip=set(sizes), fail_untyped=False)
    return {key.removeprefix("options."): known for key, known in parser.described().items() if key != "options"}
