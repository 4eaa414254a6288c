"""A list of the trained models available without a network: in the package and in the cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lightning_ham.certification.certificate import read_certificate
from lightning_ham.foreign import shown
from lightning_ham.hub.config import ModelConfig, read_config
from lightning_ham.hub.files import CARD, CERTIFICATE, CONFIG, WEIGHTS, expanded
from lightning_ham.hub.measured import read_card
from lightning_ham.hub.places import BUNDLED, REPO_ID, bundled_names


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
    supervision: tuple[str, ...] = ()
    """Kinds of supervision, as its card has them: ``answers``, or some of ``echo``, ``state``, ``hints``, ``branches``
    and ``guide``; may be empty."""
    certified: bool = False
    """Whether it has a certificate for its weights."""


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
        except (ImportError, OSError, ValueError):  # of a plugin that is broken, another kind of model, or incomplete
            continue


def _describe(folder: Path, name: str, where: str) -> PretrainedModel:
    """Return the description of a model from its files.

    Raises:
        OSError: If a file is missing or cannot be read.
        ValueError: If its configuration is not one of ours.
    """
    config = read_config(folder / CONFIG)
    card = read_card(folder / CARD)
    errors = {str(lengths): share for lengths, share in card.measured.items()}
    size = (folder / WEIGHTS).stat().st_size
    return PretrainedModel(name, config["task"], errors, size, where, card.supervision, _is_certified(folder, config))


def _is_certified(folder: Path, config: ModelConfig) -> bool:
    """Return whether a folder has a certificate for the weights that its configuration names."""
    if not (folder / CERTIFICATE).is_file():
        return False
    certificate = read_certificate((folder / CERTIFICATE).read_bytes(), folder / CERTIFICATE)
    return certificate.weights_sha256 == config.get("weights_sha256")
