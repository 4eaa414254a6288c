"""What a model's card says of it: the share of wrong sequences, by range of lengths, and the supervision it had."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from lightning_ham.hub.supervision import TAG, in_order
from lightning_ham.tasks import Lengths

_MOST_BYTES = 1 << 16
"""Most bytes of a card in which its metadata may lie; those of real ones have a few thousand."""
_MOST_LEVELS = 20
"""Most levels of metadata; those of real ones have eight."""
_METADATA = re.compile(r"\s*---[ \t\r]*\n(.*?)\n---[ \t\r]*(\n|$)", re.DOTALL)


class CardFacts(NamedTuple):
    """What a card says in its metadata."""

    measured: dict[Lengths, float]
    """Share of wrong sequences, in [0, 1], by lengths."""
    supervision: tuple[str, ...]
    """Kinds of supervision (:mod:`lightning_ham.hub.supervision`); empty if the card names none."""


def read_card(card: Path) -> CardFacts:
    """Return what a card says; nothing where it cannot be read.

    A card may come from anybody. What is no such share, no such range and no such kind is passed over, and the rest
    counts. Metadata that is damaged, or laid out to take long, says nothing.
    """
    try:
        if not card.is_file():  # a pipe would be waited for
            return CardFacts({}, ())
        with card.open("rb") as file:
            text = _METADATA.match(file.read(_MOST_BYTES).decode("utf-8", "replace"))
    except OSError:
        return CardFacts({}, ())
    metadata = _read(text[1]) if text else None
    return CardFacts(_measured(metadata), _supervision(metadata))


def read_measured(card: Path) -> dict[Lengths, float]:
    """Return the share of wrong sequences, in [0, 1], by lengths, as a card has them; see :func:`read_card`."""
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
    """Return the kinds that the tags name; the answers count only where no tag names more, as they are the least."""
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    texts = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    kinds = in_order(tag.removeprefix(TAG) for tag in texts if tag.startswith(TAG))
    return kinds if kinds == ("answers",) else tuple(kind for kind in kinds if kind != "answers")


def _read(text: str) -> object:
    """Return what YAML says, all of its values as text; None where it is none, or refers to parts of itself."""
    import yaml

    # It makes no objects, dates or numbers, of which a long one would take long; the first is faster.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    levels = 0
    try:
        for event in yaml.parse(text, Loader=loader):  # as it goes, so that what is too deep is not read
            if isinstance(event, yaml.AliasEvent):  # a few lines of these can stand for any amount
                return None
            levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if levels > _MOST_LEVELS:
                return None
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, OverflowError, ValueError):  # the last two of characters that there are not
        return None


def _items(mapping: object, key: str) -> list[dict[str, Any]]:
    """Return the mappings in the list that a mapping has under a key; none if there is no such thing."""
    found = mapping.get(key) if isinstance(mapping, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
