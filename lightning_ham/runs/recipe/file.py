"""Reads the file of a recipe: YAML with unique keys and plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from lightning_ham.foreign import quoted

_MOST_BYTES = 1 << 20
_MOST_VALUES = 10_000
_MOST_LEVELS = 50
_PLAIN = {"str", "int", "float", "bool", "null", "timestamp", "merge", "map", "seq"}
"""Allowed values in a recipe, by YAML's tags; a timestamp is read as a string."""


def read_recipe(path: Path, mode: str) -> dict[str, Any]:
    """Return the content of a recipe's file.

    Args:
        path: The file.
        mode: The parser's mode, which tells jsonargparse how to read values.

    Raises:
        ValueError: If it is not YAML, has no keys or a key twice, or holds other than plain values.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"Expected a recipe of at most {_MOST_BYTES:,} bytes, but {path} is larger.")
    try:
        text = content.decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        problem = _problem(node)
        # A comment in front: the loader would take `hub:` alone for a string, as on a command line.
        recipe = None if problem else get_loader(mode)(f"# A recipe\n{text}")
    except RecursionError:
        problem = "Expected a few levels, but got far deeper nesting."
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"Expected {path} to be YAML, but got: {error}") from error
    except ValueError as error:  # a number of thousands of digits
        problem = f"Expected plain values, but got: {error}"
    if problem:
        raise ValueError(f"{path}: {problem}")
    if not isinstance(recipe, dict):
        raise ValueError(f"Expected {path} to hold keys and values, but got {quoted(recipe)}.")
    return recipe


def _problem(root: yaml.Node | None) -> str | None:
    """Return a message if a document is wrong; checked before making values, as aliases can make many."""
    waiting = [(root, "", 0)] if root else []
    for _ in range(_MOST_VALUES):
        if not waiting:
            return None
        node, key, level = waiting.pop()
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        if tag not in _PLAIN:
            return f"Expected plain values, but got {tag!r} for {quoted(key)}."
        if level > _MOST_LEVELS:
            return "Expected a few levels, but got far deeper nesting."
        if isinstance(node, yaml.SequenceNode):
            waiting += [(value, key, level + 1) for value in node.value]
        elif isinstance(node, yaml.MappingNode):
            names = set()
            for name, value in node.value:
                if not isinstance(name, yaml.ScalarNode):
                    return f"Expected keys that are words, but got a list or a mapping in {quoted(key)}."
                inner = f"{key}.{name.value}".lstrip(".")
                if name.value in names:
                    return f"Expected every key once, but got {quoted(inner)} twice."
                names.add(name.value)
                waiting.append((value, inner, level + 1))
    return f"Expected at most {_MOST_VALUES:,} values, but got more."
