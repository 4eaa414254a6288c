"""Finds a model by its name or path: on disk, in the package, in the cache or on the Hub."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from lightning_ham.foreign import closest_to, quoted, shown
from lightning_ham.hub.address import check_variable
from lightning_ham.hub.files import CONFIG, expanded, has
from lightning_ham.tasks import task_names

ORGANISATION = "lightning-ham"
"""Organisation on the Hub for a bare name that is not in the package."""
BUNDLED = Path(__file__).with_name("weights")
"""Folder of the models in the package, one subfolder per name."""
REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""Form of the name of a model on the Hub."""

_RUNS = "runs"
"""Folder of `fit`'s run folders: names that begin with it are paths, never looked up on the Hub."""
_MAX_REPO_ID = 96
"""Most characters of a model's name on the Hub."""


def bundled_names() -> list[str]:
    """Return the names of the models in the package, sorted."""
    return sorted(config.parent.name for config in BUNDLED.glob(f"*/{CONFIG}"))


def locate(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> tuple[Path, str]:
    """Return the model folder or checkpoint for a name or path, and a description of its place.

    Arguments, order of places and errors are those of :func:`lightning_ham.hub.from_pretrained`. Add further sources of
    models here.
    """
    path, name = expanded(name_or_path), os.fspath(name_or_path)
    if _is_there(path):
        if revision is not None:
            raise ValueError(
                f"Expected no `revision` for {shown(name)}, which is a file or folder, but got {quoted(revision)}."
            )
        return _locate_on_disk(path)
    bare = path.name == name and path.suffix != ".ckpt"
    if bare and name in bundled_names() and revision is None:
        return BUNDLED / name, "the models that come with lightning_ham"
    if not bare and (isinstance(name_or_path, Path) or path.parts[0] == _RUNS or not REPO_ID.fullmatch(name)):
        raise FileNotFoundError(
            "Expected the path of a model folder, a run folder or a checkpoint, the name of a model that comes with "
            f"lightning_ham ({_known()}), or that of one on the Hub (organisation/name), but there is no {shown(name)}."
        )
    if bare and not _may_be_published(name):
        closest = closest_to(name, bundled_names())
        hint = f" did you mean {closest!r}?" if closest else ""
        raise ValueError(
            f"Unknown model {quoted(name)};{hint} Known models: {_known()}. A model on the Hub is given as "
            "organisation/name, anything else by its path."
        )
    check_variable()
    from lightning_ham.hub.download import cached, fetch

    repo_id = f"{ORGANISATION}/{name}" if bare else name
    if len(repo_id) > _MAX_REPO_ID:
        raise ValueError(
            f"Expected a name on the Hub to have at most {_MAX_REPO_ID} characters, but got {quoted(name)}."
        )
    cache = None if cache_dir is None else Path(cache_dir)
    try:
        if bare and revision is None:
            with contextlib.suppress(ValueError):  # a damaged copy is downloaded again
                copy = cached(repo_id, cache_dir=cache)
                if copy is not None:
                    return copy, f"the cache: {repo_id} at commit {copy.name[:7]}"
        return fetch(
            repo_id,
            revision=revision,
            token=token,
            cache_dir=cache,
            local_files_only=local_files_only,
            endpoint=endpoint,
        )
    except (ConnectionError, FileNotFoundError) as error:
        also = f"These come with lightning_ham: {_known()}." if bare else f"There is no folder {name} here either."
        raise type(error)(f"{error} {also}") from error


def _known() -> str:
    return ", ".join(bundled_names()) or "none"


def _may_be_published(name: str) -> bool:
    """Return whether a bare name may exist on the Hub: ``ham-<task>`` or ``ham-<task>-<more>``."""
    tasks = (task.replace("_", "-") for task in task_names())
    return any(re.fullmatch(rf"ham-{re.escape(task)}(-[\w.-]*\w)?", name) for task in tasks)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # too long for a file name, or no permission to look into a parent folder
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def _locate_on_disk(path: Path) -> tuple[Path, str]:
    if path.is_dir():
        return _locate_in_folder(path)
    if path.suffix != ".ckpt":
        raise ValueError(f"Expected a model's folder or a checkpoint (.ckpt), but got the file {shown(path)}.")
    return path, f"the checkpoint {shown(path)}"


def _locate_in_folder(folder: Path) -> tuple[Path, str]:
    """Return what to load from a folder: the saved model, or the best checkpoint of a run folder."""
    for model in (folder, folder / "model"):
        if has(model, CONFIG):
            return model, f"the folder {shown(model)}"
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = folder / "checkpoints" / name
        if checkpoint.is_file():
            return checkpoint, f"the checkpoint {shown(checkpoint)}"
    raise FileNotFoundError(
        f"Expected a folder with {CONFIG}, or a run folder with model/{CONFIG}, checkpoints/best.ckpt or "
        f"checkpoints/last.ckpt, but {shown(folder)} has none of them."
    )
