"""Messages about values of the wrong type in a recipe.

The parser's library decides whether a value fits a type, as it also reads recipes. Its error messages are never used:
ours are made from the type and the value.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from jsonargparse import ArgumentParser

from lightning_ham.foreign import quoted
from lightning_ham.runs.recipe.keys import Given, is_section, key_types, loaded, members
from lightning_ham.runs.recipe.values import RECIPE_VALUES
from lightning_ham.tasks import Lengths

_WORDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false", NoneType: "null"}
_LISTS = (list, tuple, Sequence, Iterable)
_MAPPINGS = (dict, Mapping)


def complaint(given: Iterable[Given]) -> str | None:
    """Return a message about the first value of the wrong type; None if all fit."""
    for key, value, is_text in given:
        kind = key_types().get(key)
        if kind is None:  # a section (its keys come one by one unless it has none), or a part of a value
            if is_section(key) and not Path(value).is_file():
                got = "null" if value == "null" else quoted(value)
                return f"Expected key {key!r} to hold keys of its own, but got {got}."
            continue
        if is_text and not _is_read(kind, value):
            meant = loaded(value)
            return _told(key, kind, meant if isinstance(meant, list | Mapping) else value)
        if not is_text and not _is_of(kind, value):
            return _told(key, kind, value)
    return None


def null_complaint(values: Mapping[str, Any]) -> str | None:
    """Return a message about a key that is null but needs a value; None if there is none.

    Args:
        values: The values of all keys, by section.
    """
    for key, kind in key_types().items():
        section, _, name = key.rpartition(".")
        if section and values[section.partition(".")[0]] is None:
            return f"Expected key {section.partition('.')[0]!r} to hold keys of its own, but got null."
        group = values[section] if section else values
        if group is not None and group[name] is None and not _is_of(kind, None):
            return _told(key, kind, None)
    return None


def _is_of(kind: Any, value: Any) -> bool:
    """Return whether a value fits a type."""
    if value is None:  # the library accepts it for all types
        return any(member in (NoneType, Any) for member in members(kind))
    try:
        _parser_of(kind).parse_object({"value": value})
    except (argparse.ArgumentError, OverflowError, TypeError, ValueError):
        return False
    return True


def _is_read(kind: Any, text: str) -> bool:
    """Return whether text on the command line is a value of a type."""
    try:
        _parser_of(kind).parse_args([f"--value={text}"])
    except (argparse.ArgumentError, OverflowError, TypeError, ValueError):
        return False
    return True


def _parser_of(kind: Any) -> ArgumentParser:
    """Return a parser with the single key ``value``."""
    parser = ArgumentParser(exit_on_error=False, parser_mode=RECIPE_VALUES)
    parser.add_argument("--value", type=kind)
    return parser


def _told(key: str, kind: Any, value: Any) -> str:
    """Return a message about a value of the wrong type, or about its first wrong part."""
    for inner_key, inner_kind, part in _parts(key, kind, value):
        if not _is_of(inner_kind, part):
            return _told(inner_key, inner_kind, part)
    if kind is Lengths:
        try:
            Lengths.of(value)
        except ValueError as error:
            return f"Key {key!r}: {error}."
    classes = [member for member in members(kind) if _is_class(member)]
    path = value.get("class_path") if isinstance(value, Mapping) else value
    if classes and isinstance(path, str):
        return _told_of_class(key, classes, path, value)
    constants = {None: "null", True: "true", False: "false"}
    got = constants[value] if value is None or isinstance(value, bool) else quoted(str(value))
    return f"Expected key {key!r} to be {_in_words(kind)}, but got {got}."


def _parts(key: str, kind: Any, value: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the parts of a list or mapping, each with its key and type."""
    or_null = [NoneType] if NoneType in members(kind) else []
    if isinstance(value, list):
        inner = [typing.get_args(member)[0] for member in members(kind) if typing.get_origin(member) in _LISTS]
        if inner:
            yield from ((key, typing.Union[(*inner, *or_null)], part) for part in value)
    elif isinstance(value, Mapping) and "class_path" not in value:
        for member in members(kind):
            if typing.get_origin(member) in _MAPPINGS:
                yield from ((f"{key}.{name}", typing.get_args(member)[1], part) for name, part in value.items())


def _told_of_class(key: str, kinds: Sequence[type[Any]], path: str, value: Any) -> str:
    """Return a message about a wrong class ``path``, or about wrong arguments of the class."""
    found = next((made for kind in kinds if (made := _class_named(path, kind))), None)
    if found is None:
        return f"Expected key {key!r} to name a class that there is, but got {quoted(path)}."
    arguments = value.get("init_args") if isinstance(value, Mapping) else None
    hints = typing.get_type_hints(found.__init__)
    for name, argument in (arguments or {}).items():
        if name in hints and not _is_of(hints[name], argument):
            return _told(f"{key}.{name}", hints[name], argument)
    takes = ", ".join(inspect.signature(found).parameters)
    return f"Expected key {key!r} to have the arguments that {found.__name__} takes ({takes}), but got {quoted(value)}."


def _class_named(path: str, kind: type[Any]) -> type[Any] | None:
    """Return a class by the bare name of an imported one, or by its import path; None if it is no ``kind``."""
    module, _, name = path.rpartition(".")
    if not module:
        return next((known for known in _subclasses(kind) if known.__name__ == name), None)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        return None
    return found if inspect.isclass(found) and issubclass(found, kind) else None


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for known in kind.__subclasses__():
        yield from _subclasses(known)


def _is_class(kind: Any) -> bool:
    """Return whether a recipe makes values of this type by naming a class."""
    return inspect.isclass(kind) and kind not in (*_WORDS, Lengths, datetime.timedelta) and not typing.get_origin(kind)


def _in_words(kind: Any) -> str:
    """Describe the YAML values of a type.

    >>> _in_words(int | list[int] | None), _in_words(Literal["a", "b"])
    ('an integer or a list or null', "one of 'a', 'b'")
    """
    choices = [choice for member in members(kind) if typing.get_origin(member) is Literal for choice in member.__args__]
    words = []
    for member in sorted(members(kind), key=lambda member: member is NoneType):
        if typing.get_origin(member) is Literal:
            words.append(f"one of {', '.join(map(repr, choices))}")
        elif member is not datetime.timedelta:  # its other forms are named
            origin = typing.get_origin(member)
            words.append(_WORDS.get(member) or ("a list" if origin in _LISTS else "a mapping"))
    return " or ".join(dict.fromkeys(words))
