"""List the commands: ``python -m lightning_ham``."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_ham import __version__
from lightning_ham.command_line import CommandParser, run
from lightning_ham.foreign import closest_to

COMMANDS = (
    "fit",
    "evaluate",
    "solve",
    "draw",
    "certify",
    "export",
    "demo",
    "models",
    "push",
    "sweep",
    "reproduce",
    "new_plugin",
)
FOR_MAINTAINERS = ("results", "cards", "bundle")


def main(argv: Sequence[str] | None = None) -> int:
    """List the commands, or print the version; return the exit status."""
    lines = ["Train, inspect, use and publish Hierarchical Attentive Memory networks.", "", *_listed(COMMANDS)]
    lines += ["", "For maintainers, in a checkout:", *_listed(FOR_MAINTAINERS), "", "Each of them takes --help."]
    parser = CommandParser("", "\n".join(lines))
    parser.add_argument("--version", action="version", version=f"lightning_ham {__version__}")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    words = parser.parse(argv).words
    if words:
        known = closest_to(words[0], [*COMMANDS, *FOR_MAINTAINERS])
        command = shlex.join(["python", "-m", f"lightning_ham.{known}", *words[1:]]) if known else ""
        hint = f"did you mean {command}?" if known else "see --help for the commands that there are."
        parser.error(f"Expected no argument, but got {words[0]!r}; {hint}")
    sys.stdout.write(parser.format_help())
    return 0


def _listed(commands: Sequence[str]) -> Iterator[str]:
    """Yield the usage of each command, then its purpose, from its module's docstring."""
    for command in commands:
        path = Path(__file__).with_name(f"{command}.py")
        source = path if path.is_file() else Path(__file__).with_name(command) / "__main__.py"
        documentation = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        purpose, _, usage = documentation.partition("\n")[0].partition(": ``")
        yield f"  {re.sub('`.*', '', usage)}"
        yield f"      {purpose}"


if __name__ == "__main__":
    run(main)
