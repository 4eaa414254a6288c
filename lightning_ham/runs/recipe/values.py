"""How a value in a recipe or on its command line is read: YAML, in which ``1:32`` is a range of lengths.

YAML of old takes it for a number of minutes and seconds, 92.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse.typing import register_type

from lightning_ham.tasks import Lengths

RECIPE_VALUES = "recipe"
"""The mode of jsonargparse's parsers that reads them so."""

_NUMBERS = {
    "int": r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)",
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9_]+(?:[eE][-+][0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
    ),
}


class _Loader(yaml.SafeLoader):
    """Reads ``1e-4`` as a number, as jsonargparse's own loader does, and neither dates nor numbers to the base 60."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in {*_NUMBERS, "timestamp"}]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _kind, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), list("-+.0123456789"))


def _read(text: str) -> Any:
    value = yaml.load(text, Loader=_Loader)
    if isinstance(value, dict) and value and all(item is None for item in value.values()):
        # Words in braces, or before a colon, are text: so does jsonargparse's own loader.
        words = set(text.strip(" {}").replace(" ", "").split(","))
        if words == set(value) or text.strip() == f"{next(iter(value))}:":
            return text
    return value


set_loader(RECIPE_VALUES, _read, exceptions=(yaml.YAMLError,))
register_type(Lengths, str, Lengths.of, type_check=lambda value, kind: isinstance(value, kind))
