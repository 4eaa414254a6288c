"""Downloads models from the Hub into its cache: complete, from one commit, with verified hashes, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, constants, hf_hub_download, is_offline_mode, try_to_load_from_cache
from huggingface_hub.hf_api import RepoSibling

from lightning_ham import __version__
from lightning_ham.foreign import quoted, shown
from lightning_ham.hub.address import shown_address
from lightning_ham.hub.config import check_weights, read_config
from lightning_ham.hub.connection import (
    Token,
    bounded,
    resolve_endpoint,
    resolve_token,
    timeout,
)
from lightning_ham.hub.files import CONFIG, FILES, NEEDED, TABLE, WEIGHTS

_COMMIT = re.compile("[0-9a-f]{40}")
_REVISION = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")
_MAX_REVISION = 255
_HASHES = {40: "sha1", 64: "sha256"}  # of files in git, and of large files (LFS)

_log = logging.getLogger(__name__)


def fetch(
    repo_id: str,
    *,
    revision: str | None = None,
    token: Token = None,
    cache_dir: Path | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> tuple[Path, str]:
    """Return the folder of a model on the Hub, and its origin in words.

    The Hub tells the newest commit of the revision; files in the cache are not downloaded again. If the Hub cannot be
    reached, the copy in the cache is used, with a warning.

    Args:
        repo_id: ``organisation/name``.
        revision: A branch, a tag or a commit; the main branch if None.
        token: For private models.
        cache_dir: The cache; by default that of ``HF_HOME``.
        local_files_only: Do not contact the Hub.
        endpoint: The Hub's address; by default ``HF_ENDPOINT``.

    Raises:
        ConnectionError: If the Hub cannot be reached or fails, and there is no copy in the cache.
        FileNotFoundError: If there is no such model, or the token may not see it.
        PermissionError: If the token does not permit it, or the cache cannot be written to.
        ValueError: If the files are not a model of lightning_ham, or are damaged.
    """
    revision = revision or constants.DEFAULT_REVISION
    if len(revision) > _MAX_REVISION or not _REVISION.fullmatch(revision):
        raise ValueError(f"Expected a branch, a tag or a commit as `revision`, but got {quoted(revision)}.")
    cache = cache_folder(cache_dir)
    if local_files_only or is_offline_mode():
        snapshot = cached(repo_id, revision, cache)
        if snapshot is None:
            asked = "`local_files_only` is given" if local_files_only else "HF_HUB_OFFLINE is set"
            raise FileNotFoundError(
                f"Expected {repo_id} at {revision} in the cache {shown(cache)}, as {asked}, but it is not there. Load "
                "it once with a connection."
            )
        return snapshot, _origin(repo_id, snapshot, "the cache")
    if _COMMIT.fullmatch(revision):  # a commit never changes
        with contextlib.suppress(ValueError):  # a damaged copy is downloaded again
            snapshot = cached(repo_id, revision, cache)
            if snapshot is not None:
                return snapshot, _origin(repo_id, snapshot, "the cache")
    try:
        snapshot = _download(repo_id, revision, resolve_token(token), cache, resolve_endpoint(endpoint))
    except ConnectionError as error:
        copy = cached(repo_id, revision, cache)
        if copy is None:
            raise
        _log.warning("%s Going on with the copy in the cache.", error)
        return copy, _origin(repo_id, copy, "the cache")
    return snapshot, _origin(repo_id, snapshot, shown_address(resolve_endpoint(endpoint)))


def cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """Return the cache for models from the Hub: ``cache_dir``, or the one of HF_HOME and HF_HUB_CACHE.

    Raises:
        FileNotFoundError: If it should be in the user's home, and there is no home.
    """
    try:
        return Path(cache_dir or constants.HF_HUB_CACHE).expanduser().resolve()
    except RuntimeError as error:
        raise FileNotFoundError(
            "Expected a folder to keep models from the Hub in, but there is no home for it: set HF_HOME or give "
            "`cache_dir`."
        ) from error


def cached(repo_id: str, revision: str | None = None, cache_dir: Path | None = None) -> Path | None:
    """Return the folder of a model in the cache; None if a needed file is missing.

    Raises:
        ValueError: If a file is damaged, or lies outside the cache.
    """
    cache = cache_folder(cache_dir)
    found = [try_to_load_from_cache(repo_id, name, cache, revision) for name in NEEDED]
    paths = [Path(path) for path in found if isinstance(path, str)]
    if len(paths) < len(NEEDED) or len({path.parent for path in paths}) > 1:
        return None
    for path in paths:
        _check_place(path, cache)
        if not _is_sound(path, None):
            raise ValueError(
                f"{shown(path)}: Expected a file with the hash in its name, but it is damaged; load it again."
            )
    return paths[0].parent


def _origin(repo_id: str, snapshot: Path, place: str) -> str:
    return f"{place}: {repo_id} at commit {snapshot.name[:7]}"


def _download(repo_id: str, revision: str, token: Token, cache: Path, endpoint: str) -> Path:
    """Bring the cache up to date; return the folder of the model in it.

    The configuration is checked before the weights are downloaded. The cache learns of the new commit only when all its
    files are there: until then, loading without a connection gives the former model.
    """
    action = f"fetch {repo_id}{'' if revision == constants.DEFAULT_REVISION else f' at {revision}'} from the Hub"
    api = HfApi(endpoint, token, library_name="lightning-ham", library_version=__version__)

    def get(name: str, revision: str, *, again: bool = False) -> Path:
        with bounded(action, endpoint, token, cache):
            path = hf_hub_download(
                repo_id,
                name,
                revision=revision,
                token=token,
                cache_dir=cache,
                endpoint=endpoint,
                etag_timeout=timeout(),
                force_download=again,
                library_name="lightning-ham",
                library_version=__version__,
            )
        _check_place(Path(path), cache)
        return Path(path)

    with bounded(action, endpoint, token):
        info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=timeout())
    commit, files = _contents(info, repo_id, endpoint)
    for name, file in files.items():
        expected = file.lfs.sha256 if file.lfs else file.blob_id
        if not isinstance(expected, str | None):
            raise ConnectionError(
                f"Expected {shown_address(endpoint)} to tell the hash of {name}, but got {quoted(expected)}."
            )
        path = get(name, commit)
        if not _is_sound(path, expected):  # the copy in the cache may be damaged
            path = get(name, commit, again=True)
        if not _is_sound(path, expected):
            _remove(path)
            raise ValueError(
                f"Expected to {action}, but the hash of {name} is not the one that {shown_address(endpoint)} gives "
                "for it. Try again."
            )
        if name == CONFIG:
            config = read_config(path)
        elif name == WEIGHTS:
            check_weights(config, path.read_bytes(), path)
    if revision != commit and try_to_load_from_cache(repo_id, CONFIG, cache, revision) != str(path.with_name(CONFIG)):
        get(CONFIG, revision)
    return path.parent


def _contents(info: ModelInfo, repo_id: str, endpoint: str) -> tuple[str, dict[str, RepoSibling]]:
    """Return the commit, and the files to download from the Hub, the configuration first."""
    commit = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise ConnectionError(
            f"Expected {shown_address(endpoint)} to tell the commit of {repo_id}, but got {quoted(commit)}."
        )
    there = {str(file.rfilename): file for file in info.siblings or []}
    for name in NEEDED:
        if name not in there:
            listed = ", ".join(shown(file, 40) for file in sorted(there)[:10]) or "no file at all"
            raise ValueError(f"Expected a model of lightning_ham, but {repo_id} has no {name}. It has {listed}.")
    for name, most, _ in TABLE:
        if most is None:
            continue
        size = there[name].size if name in there else None
        if size is not None and type(size) is not int:
            raise ConnectionError(
                f"Expected {shown_address(endpoint)} to tell the size of {name}, but got {quoted(size)}."
            )
        if size is not None and size > most:
            raise ValueError(f"Expected {name} of {repo_id} to have at most {most:,} bytes, but got {size:,}.")
    return commit, {name: there[name] for name in FILES if name in there}


def _check_place(path: Path, cache: Path) -> None:
    """Raise a ValueError if a file of the cache is a link that leads out of it."""
    if not path.resolve().is_relative_to(cache):
        raise ValueError(
            f"{shown(path)}: Expected a file within the cache {shown(cache)}, but it is a link to "
            f"{shown(path.resolve())}."
        )


def _is_sound(path: Path, expected: str | None) -> bool:
    """Return whether a file has the expected hash, by default that of its name in the cache."""
    expected = expected or path.resolve().name
    kind = _HASHES.get(len(expected))
    if kind is None or not re.fullmatch("[0-9a-f]+", expected):
        return True  # a copy in a cache without links, whose name is not a hash
    content = path.read_bytes()
    if kind == "sha1":
        content = b"blob %d\0%s" % (len(content), content)
    return hashlib.new(kind, content, usedforsecurity=False).hexdigest() == expected


def _remove(path: Path) -> None:
    """Remove a file and its link from the cache."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
