"""The table of commands, and how a user calls them: ``lightning-ham NAME``, or ``python -m lightning_ham.NAME``."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SCRIPT = "lightning-ham"
"""The console command that comes with the package."""

COMMANDS = (
    "fit",
    "evaluate",
    "solve",
    "draw",
    "demo",
    "certify",
    "export",
    "models",
    "push",
    "sweep",
    "reproduce",
    "new-plugin",
    "schema",
    "completion",
)
"""Names of the commands. The command ``some-name`` is the module ``lightning_ham/some_name.py``, or the package
``lightning_ham/some_name`` with a ``__main__.py``. It has a docstring that begins with the purpose and the usage,
``make_parser`` and ``main``."""
FOR_MAINTAINERS = ("results", "cards", "bundle")
"""Names of the commands that work in a checkout only."""

_PACKAGE = Path(__file__).parent
_MODULE_CALL = re.compile(r"python -m lightning_ham\.(\w+)")


class Listed(NamedTuple):
    """A command in the list of commands."""

    name: str
    purpose: str
    """What it does, in one line."""
    usage: str
    """How it is called, as the user calls commands."""


def module_of(name: str) -> str:
    """Return the module of a command, which has its ``main`` and ``make_parser``.

    >>> module_of("new-plugin"), module_of("models")
    ('lightning_ham.new_plugin', 'lightning_ham.models.__main__')
    """
    path = name.replace("-", "_")
    return f"lightning_ham.{path}.__main__" if (_PACKAGE / path).is_dir() else f"lightning_ham.{path}"


def listed(names: tuple[str, ...]) -> Iterator[Listed]:
    """Yield purpose and usage of commands, from their modules' docstrings; the modules are not imported."""
    for name in names:
        source = _PACKAGE.joinpath(*module_of(name).split(".")[1:]).with_suffix(".py")
        documentation = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        purpose, _, usage = documentation.partition("\n")[0].partition(": ``")
        yield Listed(name, purpose, as_called(usage.partition("``")[0]))


def called(name: str = "") -> str:
    """Return what the user types before the arguments of a command, as this process was started.

    Args:
        name: The command; empty for the package's own.
    """
    started = Path(sys.argv[0] if sys.argv else "")
    if started.stem == SCRIPT:
        return f"{SCRIPT} {name}".rstrip()
    if started.parts[-2:] == ("lightning_ham", "__main__.py"):
        return f"python -m lightning_ham {name}".rstrip()
    return f"python -m lightning_ham.{name.replace('-', '_')}".rstrip(".")


def as_called(text: str) -> str:
    """Return text with the commands of this package written as the user calls them."""
    return _MODULE_CALL.sub(lambda match: called(_name_of(match[1])), text)


def _name_of(module: str) -> str:
    """Return the name of the command whose module this is."""
    name = module.replace("_", "-")
    return name if name in COMMANDS or name in FOR_MAINTAINERS else module
