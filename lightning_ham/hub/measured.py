"""Reads error rates from a model's card: the share of wrong sequences, by range of lengths."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from lightning_ham.tasks import Lengths

_MOST_BYTES = 1 << 16
"""Most bytes of a card that are searched for metadata; real metadata has a few thousand."""
_MOST_LEVELS = 20
"""Most levels of metadata; real metadata has eight."""
_METADATA = re.compile(r"\s*---[ \t\r]*\n(.*?)\n---[ \t\r]*(\n|$)", re.DOTALL)


def read_measured(card: Path) -> dict[Lengths, float]:
    """Return the share of wrong sequences, in [0, 1], by lengths; empty if a card has none that can be read.

    Anyone may write a card: entries that are no share or no range are skipped, and metadata that is damaged, or made to
    take long, is ignored.
    """
    try:
        if not card.is_file():  # a pipe would be waited for
            return {}
        with card.open("rb") as file:
            metadata = _METADATA.match(file.read(_MOST_BYTES).decode("utf-8", "replace"))
    except OSError:
        return {}
    measured = {}
    for model in _items(_read(metadata[1]) if metadata else None, "model-index"):
        for result in _items(model, "results"):
            for metric in _items(result, "metrics"):
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    share = float(metric["value"])
                    if metric["type"] == "sequence_error" and 0 <= share <= 1:
                        measured[Lengths.of(result["dataset"]["config"])] = share
    return measured


def _read(text: str) -> object:
    """Return the content of YAML with all values as text; None if it is invalid, too deep or has aliases."""
    import yaml

    # It makes no objects, dates or numbers, as long numbers take long to read; the first is faster.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    levels = 0
    try:
        for event in yaml.parse(text, Loader=loader):  # event by event, so that nothing too deep is read
            if isinstance(event, yaml.AliasEvent):  # a few of these can expand to any size
                return None
            levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if levels > _MOST_LEVELS:
                return None
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, OverflowError, ValueError):  # the last two for invalid characters
        return None


def _items(mapping: object, key: str) -> list[dict[str, Any]]:
    """Return the mappings in the list under a key; empty if there is no such list."""
    found = mapping.get(key) if isinstance(mapping, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
