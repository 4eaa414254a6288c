"""Finds recipes by name, and names them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lightning_ham.foreign import closest_to, quoted

_PACKAGE = Path(__file__).parents[2]
RECIPES = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"
"""The shipped recipes: inside the package when installed from a wheel, beside it in a checkout."""


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, sorted, those in folders after the others."""
    names = (path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))
    return sorted(names, key=lambda name: (name.count("/"), name))


def recipe_name(path: Path) -> str:
    """Return the name of a recipe: ``paper/sort`` or the like for a shipped one, else the file's name."""
    if path.resolve().is_relative_to(RECIPES.resolve()):
        return path.resolve().relative_to(RECIPES.resolve()).with_suffix("").as_posix()
    return path.stem


def find_recipe(name_or_path: str) -> Path:
    """Return the file of a recipe, given its path or the name of a shipped one, such as ``merge``.

    Raises:
        FileNotFoundError: If there is no such recipe; the message names the closest match.
    """
    path = Path(name_or_path)
    with suppress(OSError):  # the name may be too long for a file
        if path.is_file():
            return path
        shipped = RECIPES / f"{name_or_path}.yaml"
        if path.suffix not in {".yaml", ".yml"} and shipped.is_file():
            return shipped
    names = recipe_names()
    close = closest_to(path.stem, names)
    hint = f" did you mean {close!r}?" if close else ""
    raise FileNotFoundError(
        f"Expected a recipe, but got {quoted(name_or_path)}, which is neither a file nor a shipped recipe;"
        f"{hint} shipped: {', '.join(names)}."
    )
