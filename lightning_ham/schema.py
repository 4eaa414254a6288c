"""Print the JSON Schema of recipes: ``python -m lightning_ham.schema``.

An editor with a YAML language server completes and checks a recipe that names the schema in its first line:
``# yaml-language-server: $schema=schema.json``, with a path from the recipe's folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from lightning_ham.command_line import CommandParser, run
from lightning_ham.runs.recipe.schema import recipe_schema


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    return CommandParser(
        "schema",
        "Print the JSON Schema (draft 2020-12) of recipes: their keys with types, choices, bounds, defaults and\n"
        "descriptions. Tasks, controllers and estimators of other packages that are installed are in it.",
        "To use it in an editor with a YAML language server, save it beside a recipe whose first line is\n"
        "# yaml-language-server: $schema=schema.json",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    make_parser().parse(argv)
    sys.stdout.write(json.dumps(recipe_schema(), indent=2, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    run(main)
