"""The parser of recipes, whose complaints are one line that names the key."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser

from lightning_ham.foreign import LONGEST_MESSAGE, quoted, shown
from lightning_ham.runs.recipe.trainer_options import LEFT_OUT
from lightning_ham.training import (
    BreakUpGuard,
    HAMModule,
    LengthCurriculum,
    ReinforceOptions,
    StopAtErrors,
    TaskDataModule,
)

LINKED = {"model.task": "task", "data.task": "task", "model.seed": "seed_everything", "data.seed": "seed_everything"}
"""Keys that follow another one, which stands for both the model's and the data's."""

_SECTIONS: dict[str, type[Any]] = {
    "model": HAMModule,
    "model.reinforce": ReinforceOptions,
    "data": TaskDataModule,
    "curriculum": LengthCurriculum,
    "stop": StopAtErrors,
    "guard": BreakUpGuard,
}


@contextmanager
def named_as_keys(section: str, arguments: Iterable[str]) -> Iterator[None]:
    """Have a ValueError name keys as a recipe writes them, 'model.learning_rate', in place of `learning_rate`.

    Args:
        section: The section whose keys they are; "" for the keys of none.
        arguments: The arguments that are keys of this section.
    """
    known, prefix = set(arguments), f"{section}." if section else ""

    def key(match: re.Match[str]) -> str:
        name = match["name"]
        if name.partition(".")[0] not in known:
            return match[0]
        word = {"argument": "key ", "Argument": "Key "}.get(match["word"] or "", "")
        return f"{word}'{prefix}{name}'"

    try:
        yield
    except ValueError as error:
        message = re.sub(r"(?:(?P<word>[Aa]rgument) )?`(?P<name>[^`\s]+)`", key, str(error))
        raise ValueError(re.sub(r"\bgot (None|True|False)\b", _as_yaml, message)) from error


def _as_yaml(match: re.Match[str]) -> str:
    """Return a word of Python as a recipe writes it."""
    return match[0].replace(match[1], {"None": "null"}.get(match[1], match[1].lower()))


def _making(section: str) -> Callable[..., Any]:
    """Return what makes the class of a section, with errors that name the keys of the recipe."""

    def make(class_type: type[Any], *args: Any, **kwargs: Any) -> Any:
        with named_as_keys(section, inspect.signature(class_type).parameters):
            try:
                return class_type(*args, **kwargs)
            except (RuntimeError, MemoryError) as error:  # not enough memory for its weights
                raise ValueError(f"Expected the keys of {section!r} to make a model, but got: {error}") from error

    return make


class RecipeParser(LightningArgumentParser):
    """A parser whose complaint is one line that names the closest valid key."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` in one line and exit with status 2."""
        sys.stderr.write(f"error: {shown(self._one_line(message), LONGEST_MESSAGE)}\n")
        sys.exit(2)

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the help without the markup of docstrings."""
        return without_markup(super().format_help(formatter))

    def checked(self, recipe: Mapping[Any, Any]) -> dict[str, Any]:
        """Return a recipe without its empty sections, which are their defaults.

        Raises:
            ValueError: If it has a key that there is not: the parser itself ignores some, and names others without
                their group.
        """
        return self._checked(recipe, "", self._known_keys())

    def _checked(self, section: Mapping[Any, Any], prefix: str, known: set[str]) -> dict[str, Any]:
        result = {}
        for name, value in section.items():
            key = f"{prefix}{name}"
            if key in known:
                result[name] = value
            elif not any(other.startswith(f"{key}.") for other in known):
                raise ValueError(self._unknown(key))
            elif isinstance(value, Mapping):
                result[name] = self._checked(value, f"{key}.", known)
            elif value is not None:
                raise ValueError(f"Expected key {key!r} to hold keys of its own, but got {quoted(value)}.")
        return result

    def instantiate_classes(self, cfg: Namespace, **kwargs: Any) -> Namespace:
        """Make what the recipe says, with errors that name its keys."""
        makers = [(_making(section), made, False) for section, made in _SECTIONS.items()]
        return self.instantiate(cfg, instantiators=makers, **kwargs)

    def check_null(self, config: Namespace) -> None:
        """Complain of a key without a value where it needs one: the parser lets null pass for all types."""
        for section in {key.partition(".")[0] for key in self._known_keys() if "." in key}:
            if config[section] is None:
                self.error(f"Expected key {section!r} to hold keys of its own, but got null.")
        try:
            self.validate(config, skip_unset=False)
        except TypeError as error:
            self.error(str(error))

    def _known_keys(self) -> set[str]:
        hidden = {"help", "config", "print_config", *LINKED}
        known = {action.dest for action in self._actions if not action.dest.endswith(".help")} - hidden
        known |= {f"model.reinforce.{field.name}" for field in dataclasses.fields(ReinforceOptions)}
        groups = {key[:end] for key in known for end, sign in enumerate(key) if sign == "."}
        return known - groups

    def _one_line(self, message: str) -> str:
        """Say in one line what jsonargparse says in many."""
        unknown = re.search(r"(?:[Uu]nrecognized arguments: --|[Oo]ption ')([\w.]+)", message)
        if unknown:
            return self._unknown(unknown[1])
        key = re.search(r'Parser key "([\w.]+)"', message)
        unfit = re.search(r"Not of type \w+: (.*)", message)
        if key and unfit:  # what our own type says of a value
            return f"Key {key[1]!r}: {unfit[1]}."
        value = re.search(r"(?:Got value: |Given value: |Unable to load config )(.*)$", message, re.MULTILINE)
        if key and value:
            missing = re.search(r"Problem with given class_path '.*':\s*(.*)", message)
            why = missing[1] if missing else of_one_type(message)
            expected = f"name a class that there is ({why})" if why else f"be {_expected(message)}"
            expected = expected.replace("true or false or an integer", "an integer")  # of the seed, which is no truth
            got = "null" if value[1] == "None" else quoted(value[1].strip(repr("")))
            # A class within a section has a parser of its own, which knows its keys without the section's.
            by_name = {known.rpartition(".")[2]: known for known in sorted(self._known_keys(), key=len)}
            return f"Expected key {by_name.get(key[1], key[1])!r} to {expected}, but got {got}."
        return "; ".join(line.strip(" -") for line in message.splitlines() if line.strip(" -"))

    def _unknown(self, key: str) -> str:
        """Say what is wrong with a key that no recipe has."""
        left_out = key.removeprefix("trainer.")
        if left_out in LEFT_OUT:
            return f"Key 'trainer.{left_out}' cannot be set in a recipe: {LEFT_OUT[left_out]}."
        known = sorted(self._known_keys())
        by_name = {name.rpartition(".")[2]: name for name in known}
        group, _, name = key.rpartition(".")
        here = {other.removeprefix(f"{group}."): other for other in known if group and other.startswith(f"{group}.")}
        groups = {word: word for word in (other.partition(".")[0] for other in known)}
        close = [LINKED[key]] if key in LINKED else [by_name[name]] if name in by_name else []
        for words in (here, groups, by_name):  # a mistyped name, or group, or name in a wrong group or in none
            close = close or [words[match] for match in difflib.get_close_matches(name, words, n=1)]
        hint = f"did you mean {close[0]!r}?" if close else "see --help for those there are."
        return f"Unknown key {quoted(key)} in the recipe or on the command line; {hint}"


def of_one_type(message: str) -> str | None:
    """Return what only one of several types says of a value that it cannot be, beside what all say."""
    _, _, errors = message.partition("  Errors:" if "  Errors:" in message else "Errors:")
    lines = re.findall(r"^ +- (?!Expected an? |Not a valid |an? )(.+)$", errors, re.MULTILINE)
    return lines[0].rstrip(".") + "." if lines else None


def _expected(message: str) -> str:
    """Say which values of YAML the types in a message stand for."""
    names = {"int": "an integer", "float": "a number", "str": "a string", "bool": "true or false", "list": "a list"}
    names |= {"NoneType": "null", "dict": "a mapping"}
    kinds = []
    for kind in re.findall(r"Expected an? ([^\n]+?)(?:\. Got value: .*)?$", message, re.MULTILINE):
        plain = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind)
        choices = re.fullmatch(r"typing\.Literal\[(.*)\]", plain)
        if choices:
            kinds.append(f"one of {choices[1]}")
        elif not plain.startswith(("path ", "dot import path ")):  # other ways to give a mapping
            kinds.append(names.get(plain, f"a {plain}"))
    if any(words in message for words in ("Unable to load config", "dot import path", "Not a valid subclass")):
        kinds.insert(0, "a mapping")
    return " or ".join(dict.fromkeys(kinds))


def without_markup(text: str) -> str:
    """Return a docstring's text as a terminal should show it.

    >>> without_markup(":class:`~lightning_ham.training.TaskDataModule` or ``null``")
    'TaskDataModule or null'
    """
    names = re.sub(r":\w+:`([^`]*)`", lambda match: "".join(match[1].split()).rpartition(".")[2], text)
    return names.replace("``", "")
