"""The parser of recipes; its errors are one line that names the key."""

from __future__ import annotations

import argparse
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from jsonargparse import Namespace
from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.loggers import Logger

from lightning_ham.runs.recipe.keys import LINKED, MADE, OPTIONS, OWN_KEYS, made_sections
from lightning_ham.runs.recipe.trainer_options import DEFAULTS as TRAINER_DEFAULTS
from lightning_ham.runs.recipe.trainer_options import LEFT_OUT


@contextmanager
def named_as_keys(section: str, arguments: Iterable[str]) -> Iterator[None]:
    """Make ValueErrors name keys as in a recipe, 'model.learning_rate' instead of `learning_rate`.

    Args:
        section: The section of the keys; "" for keys without one.
        arguments: Names of the keys in this section.
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
    """Return a Python constant as YAML."""
    return match[0].replace(match[1], {"None": "null"}.get(match[1], match[1].lower()))


def _making(section: str) -> Callable[..., Any]:
    """Return a function that makes the class of a section, with errors that name the recipe's keys."""

    def make(class_type: type[Any], *args: Any, **kwargs: Any) -> Any:
        with named_as_keys(section, inspect.signature(class_type).parameters):
            try:
                return class_type(*args, **kwargs)
            except (RuntimeError, MemoryError) as error:  # not enough memory for its weights
                raise ValueError(f"Expected the keys of {section!r} to make a model, but got: {error}") from error

    return make


def _make_later(class_type: Callable[..., Any], *args: Any, **kwargs: Any) -> functools.partial[Any]:
    """Return a function that makes a logger, once the run folder is known."""
    return functools.partial(class_type, *args, **kwargs)


def _make(class_type: type[Any], *args: Any, **kwargs: Any) -> Any:
    return class_type(*args, **kwargs)


class Described(NamedTuple):
    """What a parser knows of a key."""

    kind: Any
    """Type of its values."""
    default: Any
    description: str


class RecipeParser(LightningArgumentParser):
    """A parser that raises its errors instead of exiting, so that callers can name the keys."""

    refusal: Exception | None = None
    """The error of the last class that could not be made."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an :class:`argparse.ArgumentError`."""
        raise argparse.ArgumentError(None, message) from ex

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the help without the markup of docstrings."""
        return without_markup(super().format_help(formatter))

    def described(self) -> dict[str, Described]:
        """Return what is known of every key that was added, by its name."""
        actions = ((action, getattr(action, "_typehint", None)) for action in self._actions)
        return {
            action.dest: Described(kind, action.default, without_markup(action.help or ""))
            for action, kind in actions
            if kind is not None
        }

    def instantiate_classes(self, cfg: Namespace, **kwargs: Any) -> Namespace:
        """Make the classes of the recipe, with errors that name its keys."""
        makers = [(self._noting(_making(section)), made, False) for section, made in made_sections().items()]
        makers.append((_make_later, Logger, True))
        makers.append((self._noting(_make), object, True))
        return self.instantiate(cfg, instantiators=makers, **kwargs)

    def _noting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``make`` so that it also keeps its error in ``refusal``, as the library rewords errors."""

        def noting(class_type: type[Any], *args: Any, **kwargs: Any) -> Any:
            try:
                return make(class_type, *args, **kwargs)
            except Exception as error:
                self.refusal = error
                raise

        return noting


def add_keys(parser: LightningArgumentParser) -> None:
    """Add the keys of a recipe: our own first, the Trainer's many options last."""
    for name, own in OWN_KEYS.items():
        parser.add_argument(f"--{name}", type=own.kind, default=own.default, help=own.help, required=name == "task")
    for section, made in MADE.items():
        parser.add_lightning_class_args(made, section)
    for section, options in OPTIONS.items():
        parser.add_argument(f"--{section}", type=options, default=options())
    parser.add_class_arguments(
        Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True, skip=set(LEFT_OUT)
    )
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
    for key, source in LINKED.items():
        parser.link_arguments(source, key, compute_fn=int if source == "seed_everything" else None)


def without_markup(text: str) -> str:
    """Return a docstring's text without markup, for a terminal.

    >>> without_markup(":class:`~lightning_ham.training.TaskDataModule` or ``null``")
    'TaskDataModule or null'
    """
    names = re.sub(r":\w+:`([^`]*)`", lambda match: "".join(match[1].split()).rpartition(".")[2], text)
    return names.replace("``", "")
