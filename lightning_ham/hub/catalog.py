"""A list of the trained models available without a network: in the package and in the cache."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lightning_ham.foreign import shown
from lightning_ham.hub.config import read_config
from lightning_ham.hub.files import CARD, CONFIG, WEIGHTS, expanded
from lightning_ham.hub.places import BUNDLED, REPO_ID, bundled_names

_MAX_METADATA = 1 << 16
"""Most bytes of a card that are searched for metadata; real metadata has a few thousand."""
_MAX_LEVELS = 20
"""Most levels of metadata; real metadata has eight."""
_METADATA = re.compile(r"\s*---[ \t\r]*\n(.*?)\n---[ \t\r]*(\n|$)", re.DOTALL)
_RANGE = re.compile("[0-9]{1,9}-[0-9]{1,9}")


class PretrainedModel(NamedTuple):
    """A trained model that can be loaded by its name."""

    name: str
    """The name for :func:`lightning_ham.from_pretrained`."""
    task: str
    errors: dict[str, float]
    """Share of wrong sequences, in [0, 1], by range of lengths (``"1-32"``), from its card; may be empty."""
    size: int
    """Size of the file of weights, in bytes."""
    where: str
    """``package`` or ``cache``."""


def list_pretrained(cache_dir: str | os.PathLike[str] | None = None) -> list[PretrainedModel]:
    """Return the trained models that can be loaded by name without a network.

    Args:
        cache_dir: The cache of models from the Hub; by default HF_HOME's.

    Raises:
        OSError: If the cache cannot be read; ``NotADirectoryError`` if it is not a folder.
    """
    bundled = [_describe(BUNDLED / name, name, "package") for name in bundled_names()]
    return [*bundled, *_cached(cache_dir)]


def _cached(cache_dir: str | os.PathLike[str] | None) -> Iterator[PretrainedModel]:
    from huggingface_hub import constants, try_to_load_from_cache

    cache = expanded(cache_dir or constants.HF_HUB_CACHE)
    try:
        folders = sorted(path for path in cache.iterdir() if path.name.startswith("models--"))
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise NotADirectoryError(
            f"Expected the folder of a cache as `cache_dir` or HF_HOME's, but {shown(cache)} is a file."
        ) from error
    for folder in folders:
        repo_id = folder.name.removeprefix("models--").replace("--", "/")
        if not REPO_ID.fullmatch(repo_id):
            continue
        try:
            config = try_to_load_from_cache(repo_id, CONFIG, cache)
            if isinstance(config, str):
                yield _describe(Path(config).parent, repo_id, "cache")
        except (OSError, ValueError):  # another kind of model, or incomplete
            continue


def _describe(folder: Path, name: str, where: str) -> PretrainedModel:
    """Return the description of a model from its files.

    Raises:
        OSError: If a file is missing or cannot be read.
        ValueError: If its configuration is not one of ours.
    """
    task = read_config(folder / CONFIG)["task"]
    return PretrainedModel(name, task, _errors(folder / CARD), (folder / WEIGHTS).stat().st_size, where)


def _errors(card: Path) -> dict[str, float]:
    """Return the share of wrong sequences by range of lengths; empty if a card has none that can be read.

    Anyone may write a card: entries in unexpected places or forms are skipped.
    """
    if not card.is_file():
        return {}
    with card.open("rb") as file:
        metadata = _METADATA.match(file.read(_MAX_METADATA).decode("utf-8", errors="replace"))
    errors = {}
    for entry in _parts(_read(metadata[1]) if metadata else None, "model-index"):
        for result in _parts(entry, "results"):
            dataset = result.get("dataset")
            lengths = dataset.get("config") if isinstance(dataset, dict) else None
            for metric in _parts(result, "metrics"):
                share = _share(metric.get("value"))
                is_range = isinstance(lengths, str) and _RANGE.fullmatch(lengths)
                if metric.get("type") == "sequence_error" and is_range and share is not None:
                    errors[str(lengths)] = share
    return errors


def _read(text: str) -> object:
    """Return the content of YAML with all values as text; None if it is invalid, too deep or has aliases."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # makes no objects, numbers or dates; the first is faster
    levels = 0
    try:
        for event in yaml.parse(text, Loader=loader):  # event by event, so that nothing too deep is read
            if isinstance(event, yaml.AliasEvent):  # a few of these can expand to any size
                return None
            levels += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if levels > _MAX_LEVELS:
                return None
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, OverflowError, ValueError):  # the last two for invalid characters
        return None


def _parts(mapping: object, key: str) -> list[dict[str, Any]]:
    """Return the mappings in the list under a key; empty if there is no such list."""
    found = mapping.get(key) if isinstance(mapping, dict) else None
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []


def _share(text: object) -> float | None:
    """Return the number in [0, 1] that a text represents; None for any other text."""
    try:
        share = float(text) if isinstance(text, str) else -1.0
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None
