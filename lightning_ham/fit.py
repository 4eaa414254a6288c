"""Train a model from a recipe: ``python -m lightning_ham.fit RECIPE [--dotted.override value ...]``.

RECIPE is a file or the name of a shipped recipe. The run folder (by default ``runs/<recipe>``, see ``--run_dir``) gets
``recipe.yaml`` (resolved), ``checkpoints/{best,last}.ckpt``, ``metrics/``, ``evaluation.json`` and ``model/``, which
:func:`lightning_ham.from_pretrained` loads.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, run
from lightning_ham.console import as_called
from lightning_ham.runs.recipe.catalog import find_recipe, recipe_names
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.recipe.described import choices, described_keys
from lightning_ham.runs.recipe.parser import without_markup
from lightning_ham.runs.train import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate and export; return the exit status. See the module's docstring."""
    return train(sys.argv[1:] if arguments is None else arguments, parse)


def make_parser() -> CommandParser:
    """Return a parser that knows the options and their choices, for completion; :func:`parse` reads the arguments."""
    parser = CommandParser("fit", "Train a model from a recipe.")
    parser.add_argument("recipe", metavar="RECIPE", help="a file or the name of a shipped recipe")
    for key, described in described_keys().items():
        parser.add_argument(
            f"--{key}", choices=choices(key, described.kind), help=described.description.replace("%", "%%")
        )
    parser.add_argument("--print_config", action="store_true", help="print the recipe with all keys, and do nothing")
    return parser


def parse(arguments: Sequence[str]) -> tuple[Path, RecipeCLI]:
    """Return the recipe's file and the command line built from it and the overrides."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(as_called(without_markup(__doc__)))
        print(
            textwrap.fill(f"Shipped recipes: {', '.join(recipe_names())}", 100, break_on_hyphens=False) + "\n",
            flush=True,
        )
        RecipeCLI(None, ["--help"])
    if arguments[0].startswith("-"):
        raise ValueError(f"Expected a recipe first and options after it, but got {arguments[0]!r}.")
    recipe = find_recipe(arguments[0])
    return recipe, RecipeCLI(recipe, arguments[1:])


if __name__ == "__main__":
    run(main)
