"""List the commands, or run one of them: ``lightning-ham COMMAND``, or ``python -m lightning_ham COMMAND``."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from lightning_ham import __version__
from lightning_ham.command_line import CommandParser, run
from lightning_ham.console import COMMANDS, FOR_MAINTAINERS, called, listed, module_of
from lightning_ham.foreign import closest_to, quoted


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, list the commands, or print the version; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in (*COMMANDS, *FOR_MAINTAINERS):
        status: int = importlib.import_module(module_of(words[0])).main(words[1:])
        return status
    parser = make_parser()
    if words and not words[0].startswith("-"):
        close = closest_to(words[0], [*COMMANDS, *FOR_MAINTAINERS])
        meant = f"{called(close)} {shlex.join(words[1:])}".rstrip() if close else ""
        hint = f"did you mean {meant}?" if close else "see --help for the commands that there are."
        parser.error(f"Unknown command {quoted(words[0])}; {hint}")
    parser.parse(words)
    sys.stdout.write(parser.format_help())
    return 0


def make_parser() -> CommandParser:
    """Return the parser of what comes before a command; its help is the list of commands."""
    lines = ["Train, inspect, use and publish Hierarchical Attentive Memory networks.", ""]
    lines += [f"  {command.usage}\n      {command.purpose}" for command in listed(COMMANDS)]
    lines += ["", "For maintainers, in a checkout:"]
    lines += [f"  {command.usage}\n      {command.purpose}" for command in listed(FOR_MAINTAINERS)]
    parser = CommandParser("", "\n".join([*lines, "", "Each of them takes --help."]))
    parser.add_argument("--version", action="version", version=f"lightning_ham {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


def enter() -> NoReturn:
    """Run the console command ``lightning-ham``, and exit."""
    run(main)


if __name__ == "__main__":
    run(main)
