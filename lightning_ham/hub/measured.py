"""Reads error rates, by range of lengths, and supervision from a model's card."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from lightning_ham.hub.supervision import TAG, in_order
from lightning_ham.tasks import Lengths

_MOST_BYTES = 1 << 16
"""Most bytes of a card that are searched for metadata; real metadata has a few thousand."""
_MOST_LEVELS = 20
"""Most levels of metadata; real metadata has eight."""
_METADATA = re.compile(r"\s*---[ \t\r]*\n(.*?)\n---[ \t\r]*(\n|$)", re.DOTALL)


class CardFacts(NamedTuple):
    """What a card says in its metadata."""

    measured: dict[Lengths, float]
    """Share of wrong sequences, in [0, 1], by lengths."""
    supervision: tuple[str, ...]
    """Kinds of supervision (:mod:`lightning_ham.hub.supervision`); empty if the card names none."""


def read_card(card: Path) -> CardFacts:
    """Return the error rates and the supervision in a card; unreadable ones are left out.

    Anyone may write a card: entries that are no share, no range or no known kind are skipped, and metadata that is
    damaged, or made to take long, is ignored.
    """
    try:
        if not card.is_file():  # reading a pipe would block
            return CardFacts({}, ())
        with card.open("rb") as file:
            text = _METADATA.match(file.read(_MOST_BYTES).decode("utf-8", "replace"))
    except OSError:
        return CardFacts({}, ())
    metadata = _read(text[1]) if text else None
    return CardFacts(_measured(metadata), _supervision(metadata))


def read_measured(card: Path) -> dict[Lengths, float]:
    """Return the share of wrong sequences, in [0, 1], by lengths, from a card; see :func:`read_card`."""
    return read_card(card).measured


def _measured(metadata: object) -> dict[Lengths, float]:
    measured = {}
    for model in _items(metadata, "model-index"):
        for result in _items(model, "results"):
            for metric in _items(result, "metrics"):
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    share = float(metric["value"])
                    if metric["type"] == "sequence_error" and 0 <= share <= 1:
                        measured[Lengths.of(result["dataset"]["config"])] = share
    return measured


def _supervision(metadata: object) -> tuple[str, ...]:
    """Return the kinds that the tags name; ``answers`` only if they name nothing else."""
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    texts = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    kinds = in_order(tag.removeprefix(TAG) for tag in texts if tag.startswith(TAG))
    return kinds if kinds == ("answers",) else tuple(kind for kind in kinds if kind != "answers")


def _read(text: str) -> object:
    """Return the content of YAML with all values as text; None if it is invalid, too deep or has aliases."""
    import yaml

    # These make no objects, dates or numbers, as long numbers take long to read; the C loader is faster.
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
