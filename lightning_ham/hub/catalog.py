"""Which trained models there are without a network: those that come with the package, and those in the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lightning_ham.hub.config import read_config
from lightning_ham.hub.files import CARD, CONFIG, WEIGHTS
from lightning_ham.hub.pretrained import BUNDLED, bundled_names

_MAX_CARD = 1 << 20


class PretrainedModel(NamedTuple):
    """A trained model that can be loaded by its name."""

    name: str
    """What :func:`lightning_ham.from_pretrained` takes."""
    task: str
    errors: dict[str, float]
    """Share of wrong sequences, in [0, 1], by range of lengths (``"1-32"``), as its card has them; may be empty."""
    size: int
    """Of its weights, in bytes."""
    where: str
    """``package`` or ``cache``."""


def list_pretrained(cache_dir: str | os.PathLike[str] | None = None) -> list[PretrainedModel]:
    """Return the trained models that can be loaded by name without a network.

    Args:
        cache_dir: The cache of models from the Hub; that of HF_HOME if None.
    """
    bundled = [_describe(BUNDLED / name, name, "package") for name in bundled_names()]
    return [*bundled, *_cached(None if cache_dir is None else Path(cache_dir))]


def _cached(cache_dir: Path | None) -> Iterator[PretrainedModel]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from lightning_ham.hub.download import cache_folder

    try:
        repositories = scan_cache_dir(cache_folder(cache_dir)).repos
    except (CacheNotFound, FileNotFoundError):
        return
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        current = repository.refs.get("main")
        if repository.repo_type != "model" or current is None:
            continue
        names = {file.file_name for file in current.files}
        if {CONFIG, WEIGHTS} <= names:
            try:
                yield _describe(current.snapshot_path, repository.repo_id, "cache")
            except ValueError:  # a model of something else
                continue


def _describe(folder: Path, name: str, where: str) -> PretrainedModel:
    """Return what a model's files say of it.

    Raises:
        ValueError: If its configuration is not one of ours.
    """
    task = read_config(folder / CONFIG)["task"]
    return PretrainedModel(name, task, _errors(folder / CARD), (folder / WEIGHTS).stat().st_size, where)


def _errors(card: Path) -> dict[str, float]:
    """Return the share of wrong sequences by range of lengths, nothing where a card has none that can be read."""
    import yaml
    from huggingface_hub import ModelCard

    if not card.is_file() or card.stat().st_size > _MAX_CARD:
        return {}
    try:
        results = ModelCard.load(card, ignore_metadata_errors=True).data.eval_results or []
    except (ValueError, yaml.YAMLError):
        return {}
    return {
        str(result.dataset_config): float(result.metric_value)
        for result in results
        if result.metric_type == "sequence_error" and isinstance(result.metric_value, int | float)
    }
