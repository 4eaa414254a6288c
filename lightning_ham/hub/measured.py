"""What a model's card says was measured of it: the share of wrong sequences, by range of lengths."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from lightning_ham.tasks import Lengths

_MOST_BYTES = 1 << 16
"""Longest text before the Markdown that is read; real ones have 2,000 bytes."""
_MOST_LEVELS, _MOST_CHARACTERS = 20, 1000
"""How deep it may be nested, and how long a value of it may be."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_measured(card: Path) -> dict[Lengths, float]:
    """Return the share of wrong sequences, in [0, 1], by lengths; nothing where a card says none that can be read.

    A card may come from anybody. What is damaged, absurd or laid out to take long says nothing.
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
    """Return whether YAML is of a few levels and short values, without aliases, which can multiply."""
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
    """Return the mappings in the list at a key, where there are such."""
    items = mapping.get(key) if isinstance(mapping, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
