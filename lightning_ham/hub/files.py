"""The files that a saved model is, here and on the Hub, and how a model takes the place of another in its folder.

A further file, such as an export in another format, is a row of :data:`TABLE`, and bytes that
:meth:`lightning_ham.hub.TrainedModel.save_pretrained` writes. Saving, downloading and pushing go by the table.
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

MAX_BYTES = 1 << 20
"""Longest ``config.json`` or card that is read at all; real ones have a few hundred bytes, or some thousand."""
MAX_WEIGHTS = 1 << 30
"""Most bytes of weights that are read or downloaded; real models have less than a thousandth."""


class ModelFile(NamedTuple):
    """A file of a saved model."""

    name: str
    most_bytes: int | None
    """Most that are downloaded; None if it stays where it was made."""
    is_needed: bool = False
    """Whether there is no model without it."""


TABLE = (
    ModelFile(CONFIG, MAX_BYTES, is_needed=True),
    ModelFile(WEIGHTS, MAX_WEIGHTS, is_needed=True),
    ModelFile(CARD, MAX_BYTES),
    ModelFile("learning_curve.png", None),
    ModelFile("attention.png", None),
)
"""All files, in the order in which they are downloaded: the configuration first, which tells what the weights are."""
NEEDED = tuple(file.name for file in TABLE if file.is_needed)
"""What a model is loaded from."""
FILES = tuple(file.name for file in TABLE if file.most_bytes is not None)
"""What every model consists of."""
PICTURES = tuple(file.name for file in TABLE if file.most_bytes is None)
"""What is beside it where it was made, for the card to show."""

_NEXT = ".next"
"""A folder within a model's own: the files of a complete model that are not in their places yet."""
_BETWEEN = tuple(file.name for file in reversed(TABLE) if not file.is_needed)
_ORDER = (WEIGHTS, *_BETWEEN, CONFIG)
"""In which files go to their places. The configuration, which tells the hash of the weights, is the last."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of ``~``; where there is none, ``~`` is a name like any other."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def saved(folder: Path, name: str) -> Path:
    """Return where a file of the model in ``folder`` is: in its place, or on the way if a save was cut off."""
    waiting = folder / _NEXT
    if name in PICTURES and (waiting / WEIGHTS).is_file():
        return waiting / name  # nothing was moved yet: a picture that is not there, the model has not
    return waiting / name if (waiting / name).is_file() else folder / name


def has(folder: Path, name: str) -> bool:
    """Return whether the model in ``folder`` has a file."""
    return (folder / name).is_file() or saved(folder, name).is_file()  # the second alone may miss it on its way


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a folder to write a model's files to, which take the place of those in ``target`` if nothing fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        staging.mkdir()
        yield staging
        put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def put_in_place(staging: Path, target: Path) -> None:
    """Make the model whose files ``staging`` has the one of ``target``, at once and as a whole.

    If ``target`` is there, it stays the same folder, with what else it holds. The one step that counts is that
    ``staging`` becomes a folder within it: :func:`saved` finds the old model before, and the new one after it,
    wherever this is cut off. The files go to their places then; what a cut leaves over, the next save makes up for.
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
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process saves there, too
                raise
    _finish(target)


def _finish(target: Path) -> None:
    """Move the files of a model that is complete, but not in its place yet, to their places."""
    waiting = target / _NEXT
    if (waiting / WEIGHTS).is_file():  # nothing was moved yet
        for picture in PICTURES:
            if not (waiting / picture).is_file():
                (target / picture).unlink(missing_ok=True)  # the card does not show it any more
    for name in _ORDER:
        with contextlib.suppress(FileNotFoundError):  # the model has no such file, or it was moved before
            (waiting / name).replace(target / name)
    with contextlib.suppress(OSError):  # another process that saves there has removed it, or filled it anew
        waiting.rmdir()
