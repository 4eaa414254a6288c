"""Reads a value in a recipe or on its command line: YAML, with ``1:32`` as a range of lengths.

YAML 1.1 would read it as 1 minute and 32 seconds, 92.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse.typing import register_type

from lightning_ham.tasks import Lengths

RECIPE_VALUES = "recipe"
"""Name of this mode of jsonargparse's parsers."""

_NUMBERS = {
    "int": r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)",
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9_]+(?:[eE][-+][0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
    ),
}


class _Loader(yaml.SafeLoader):
    """Reads ``1e-4`` as a number, like jsonargparse's own loader, but no dates and no base-60 numbers."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in {*_NUMBERS, "timestamp"}]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _kind, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), list("-+.0123456789"))


def _read(text: str) -> Any:
    value = yaml.load(text, Loader=_Loader)
    if isinstance(value, dict) and value and all(item is None for item in value.values()):
        # Words in braces or before a colon are text, as in jsonargparse's own loader.
        words = set(text.strip(" {}").replace(" ", "").split(","))
        if words == set(value) or text.strip() == f"{next(iter(value))}:":
            return text
    return value


set_loader(RECIPE_VALUES, _read, exceptions=(yaml.YAMLError,))
register_type(Lengths, str, Lengths.of, type_check=lambda value, kind: isinstance(value, kind))
