"""Reads error rates from a model's card: the share of wrong sequences, by range of lengths."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from lightning_ham.tasks import Lengths

_MOST_BYTES = 1 << 16
"""Most bytes that are searched for metadata; real metadata has 2,000."""
_MOST_LEVELS, _MOST_CHARACTERS = 20, 1000
"""Most levels of nesting, and longest value, in the metadata."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_measured(card: Path) -> dict[Lengths, float]:
    """Return the share of wrong sequences, in [0, 1], by lengths; empty if a card has none that can be read.

    Anyone may write a card: content that is damaged, absurd or made to take long is ignored.
    """
    try:
        with card.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
        before, _, rest = text.partition("---\n")
        front, end, _ = rest.partition("\n---")
        if before.strip() or not end or not _is_simple(front):
            return {}
        return _errors(yaml.load(front, Loader=_Loader))
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return {}


def _is_simple(front: str) -> bool:
    """Return whether YAML has few levels, short values and no aliases, which can expand to any size."""
    level = 0
    for event in yaml.parse(front, Loader=_Loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        too_long = isinstance(event, yaml.ScalarEvent) and len(event.value) > _MOST_CHARACTERS
        if isinstance(event, yaml.AliasEvent) or level > _MOST_LEVELS or too_long:
            return False
    return True


def _errors(metadata: Any) -> dict[Lengths, float]:
    errors = {}
    for model in _items(metadata, "model-index"):
        for result in _items(model, "results"):
            for metric in _items(result, "metrics"):
                share = metric.get("value")
                if metric.get("type") == "sequence_error" and isinstance(share, int | float) and 0 <= share <= 1:
                    with contextlib.suppress(KeyError, TypeError, ValueError):
                        errors[Lengths.of(result["dataset"]["config"])] = float(share)
    return errors


def _items(mapping: Any, key: str) -> list[dict[str, Any]]:
    """Return the mappings in the list under a key; empty if there is no such list."""
    items = mapping.get(key) if isinstance(mapping, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
