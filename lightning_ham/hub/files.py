"""The files of a saved model, locally and on the Hub, and the atomic replacement of a model in its folder.

To add a file, such as an export in another format, add a row to :data:`TABLE`, and write its bytes in
:meth:`lightning_ham.hub.TrainedModel.save_pretrained`. Saving, downloading and pushing follow the table.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
CERTIFICATE = "certificate.json"
EVAL_RESULTS = ".eval_results/lightning-ham.yaml"
"""Results in the Hub's newer form; only on the Hub, made from the card."""

MAX_BYTES = 1 << 20
"""Longest ``config.json`` or card that is read; real ones have hundreds or thousands of bytes."""
MAX_CERTIFICATE = 1 << 26
"""Most bytes of a certificate that are read or downloaded; that of a stack has some thousands."""
MAX_WEIGHTS = 1 << 30
"""Most bytes of weights that are read or downloaded; real models have less than a thousandth of it."""


class ModelFile(NamedTuple):
    """A file of a saved model."""

    name: str
    most_bytes: int | None
    """Most bytes that are downloaded; None if the file is never downloaded."""
    is_needed: bool = False
    """Whether a model cannot be loaded without it."""


TABLE = (
    ModelFile(CONFIG, MAX_BYTES, is_needed=True),
    ModelFile(WEIGHTS, MAX_WEIGHTS, is_needed=True),
    ModelFile(CARD, MAX_BYTES),
    ModelFile(CERTIFICATE, MAX_CERTIFICATE),
    ModelFile("learning_curve.png", None),
    ModelFile("attention.png", None),
)
"""All files, in order of download: the configuration first, as it describes the weights."""
NEEDED = tuple(file.name for file in TABLE if file.is_needed)
"""Files needed to load a model."""
FILES = tuple(file.name for file in TABLE if file.most_bytes is not None)
"""Files that are downloaded."""
PICTURES = tuple(file.name for file in TABLE if file.most_bytes is None)
"""Files for the card to show, which are not downloaded."""
OPTIONAL = (CERTIFICATE, *PICTURES)
"""Files that some models have: another model's must not stay."""

_NEXT = ".next"
"""Folder within a model's folder: files of a complete model that still have to be moved to their places."""
_BETWEEN = tuple(file.name for file in reversed(TABLE) if not file.is_needed)
_ORDER = (WEIGHTS, *_BETWEEN, CONFIG)
"""Order of moving files to their places; the configuration, with the hash of the weights, comes last."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of ``~``; without a home, return it unchanged."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def saved(folder: Path, name: str) -> Path:
    """Return the path of a model's file: in ``folder``, or in ``_NEXT`` if a save was interrupted."""
    waiting = folder / _NEXT
    if name in OPTIONAL and (waiting / WEIGHTS).is_file():
        return waiting / name  # nothing was moved yet: old ones are not the model's
    return waiting / name if (waiting / name).is_file() else folder / name


def has(folder: Path, name: str) -> bool:
    """Return whether the model in ``folder`` has a file."""
    return (folder / name).is_file() or saved(folder, name).is_file()  # a save may move it meanwhile


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a folder to write a model's files to; they replace those in ``target`` if nothing fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        staging.mkdir()
        yield staging
        put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def put_in_place(staging: Path, target: Path) -> None:
    """Replace the model in ``target`` atomically by the model in ``staging``.

    An existing ``target`` stays the same folder, and keeps its other files. The decisive step moves ``staging`` into
    it: :func:`saved` finds the old model before this step and the new one after it, even if this is interrupted. The
    files then move to their places; after an interruption, the next save completes that.
    """
    if not target.exists():
        staging.rename(target)
        return
    while True:
        _finish(target)
        try:
            staging.rename(target / _NEXT)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process is saving there, too
                raise
    _finish(target)


def _finish(target: Path) -> None:
    """Move the files of a waiting complete model, if any, to their places."""
    waiting = target / _NEXT
    if (waiting / WEIGHTS).is_file():  # nothing was moved yet
        for name in OPTIONAL:
            if not (waiting / name).is_file():
                (target / name).unlink(missing_ok=True)  # the new model has none
    for name in _ORDER:
        with contextlib.suppress(FileNotFoundError):  # the model has no such file, or it was already moved
            (waiting / name).replace(target / name)
    with contextlib.suppress(OSError):  # another process may have removed or refilled it
        waiting.rmdir()
