"""Print what lets a shell complete the commands: ``python -m lightning_ham.completion SHELL``.

Commands, options, choices, files, recipes and models are completed. The script starts no Python when it completes: it
holds the names that are known when it is printed.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import shtab

from lightning_ham.command_line import CommandParser, run
from lightning_ham.console import COMMANDS, FOR_MAINTAINERS, SCRIPT, listed, module_of
from lightning_ham.hub import list_pretrained
from lightning_ham.runs.recipe.catalog import recipe_names

SHELLS = ("bash", "zsh", "fish")

_WHERE = f"""\
To complete {SCRIPT} in this shell, and in those that start later:

  bash   {SCRIPT} completion bash > ~/.local/share/bash-completion/completions/{SCRIPT}
         (without the package bash-completion, any file that your ~/.bashrc sources)
  zsh    {SCRIPT} completion zsh > ~/.zsh/completions/_{SCRIPT}
         (a folder that is in fpath before ~/.zshrc calls compinit)
  fish   {SCRIPT} completion fish > ~/.config/fish/completions/{SCRIPT}.fish

Print it anew after an update, or when you have installed tasks or controllers of another package."""


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "completion", f"Print a script with which a shell completes the commands of {SCRIPT}.", _WHERE
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    shell = make_parser().parse(argv).shell
    sys.stdout.write(f"{shtab.complete(all_commands(), shell)}\n")
    return 0


def all_commands() -> argparse.ArgumentParser:
    """Return one parser of all commands, with what shtab needs to complete their arguments."""
    root = argparse.ArgumentParser(SCRIPT)
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers()
    completed = dict(_completed())
    for command in (*listed(COMMANDS), *listed(FOR_MAINTAINERS)):
        own: argparse.ArgumentParser = importlib.import_module(module_of(command.name)).make_parser()
        parser = commands.add_parser(
            command.name, parents=[own], add_help=False, help=command.purpose, description=command.purpose
        )
        for action in parser._actions:  # noqa: SLF001 - argparse has no public list of them
            words = action.metavar if isinstance(action.metavar, str) else ""
            if words in completed:
                action.complete = completed[words]  # type: ignore[attr-defined]
    return root


def _completed() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what completes an argument, by its name in the help."""
    for metavar in ("FILE", "PATH"):
        yield metavar, shtab.FILE
    for metavar in ("DIR", "FOLDER", "RUN_FOLDER"):
        yield metavar, shtab.DIRECTORY
    yield "MODEL", _names_or_files("models", [model.name for model in list_pretrained()])
    yield "RECIPE", _names_or_files("recipes", recipe_names())


def _names_or_files(kind: str, names: Sequence[str]) -> dict[str, Any]:
    """Return what completes an argument that is one of some names, or a file or folder."""
    words = shlex.join(names)
    function = f"_{SCRIPT.replace('-', '_')}_{kind}_or_file"  # shtab's bash adds / to folders if the name has "_file"
    return {
        "bash": function,
        "zsh": function,
        "fish": f"{words} (__fish_complete_path (commandline -ct))",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -W {shlex.quote(words)} -- "$1"\n  compgen -f -- "$1"\n}}',
            "zsh": f"{function}() {{\n  local -a names=({words})\n"
            f"  _alternative 'names:{kind}:compadd -a names' 'files:file:_files'\n}}",
        },
    }


if __name__ == "__main__":
    run(main)
