"""A run folder: its files, its owner, and checks before writing."""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import yaml
from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from lightning_ham.whole_file import replace_file

RECIPE = "recipe.yaml"
"""The resolved recipe."""
TRAINING = "training.json"
"""How the model was trained."""
EVALUATION = "evaluation.json"
"""Its errors; written last, so the file means that the run has ended."""
LAST = Path("checkpoints", "last.ckpt")
"""The checkpoint that a training resumes."""
BEST = LAST.with_name("best.ckpt")
"""The checkpoint with the lowest validation error."""
METRICS = "metrics"
"""The folder of logged metrics."""
MODEL = "model"
"""The folder of the trained model."""
WANDB = "wandb"
"""The folder of W&B's files."""
WANDB_ID = "wandb_run_id"
"""The id of the run in W&B."""
OWNER = ".lightning-ham-owner"
"""Locked by the process that trains in the folder; holds its number and machine, and is removed at its end."""
MARKER = ".lightning-ham-owner-marker"
"""Replaces the lock if files cannot be locked."""

_FILES = (RECIPE, TRAINING, EVALUATION, WANDB_ID)
_FOLDERS = (str(LAST.parent), METRICS, MODEL)
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""Errors of file systems that cannot lock files, such as some on a network."""
_OWNER_APPEARS = 1.0
"""Seconds within which a process that locks a folder writes down its number."""
_LOG = logging.getLogger("lightning_ham")


class Choice(NamedTuple):
    """The choice of a run folder."""

    folders: Iterable[Path]
    """Candidates, of which the first free one is claimed: one, or endlessly many for a run without a name."""
    has_name: bool
    """Whether the user named the folder; otherwise it must be a new one."""
    is_new: bool
    """Whether a run begins in the folder, which then must not hold another run."""
    checkpoint: Path | None
    """The checkpoint to resume, if any."""


def choose(stem: Path, recipe: Path, run_dir: str | None, ckpt_path: str | None, *, is_override: bool) -> Choice:
    """Choose the run folder from a recipe and its options, without writing or claiming anything.

    Args:
        stem: Default folder of this recipe's runs; further ones are ``stem-2``, ...
        recipe: The file of the recipe.
        run_dir: The requested folder, if any; ``~`` is expanded.
        ckpt_path: The checkpoint to resume, or ``last``; ``~`` is expanded.
        is_override: Whether ``run_dir`` comes from the command line. If not, the recipe in a run folder resumes the run
            of that folder, even if it has been moved or copied.

    Raises:
        FileNotFoundError: If there is nothing to resume.
        FileExistsError: If the requested folder is a file.
        ValueError: If ``~`` cannot be expanded, or the folder's name is not text.
    """
    asked_for = _expanded("--run_dir", run_dir) if run_dir else None
    checkpoint = None
    is_new = False
    if ckpt_path is None:
        folder, is_new = asked_for, True
    elif ckpt_path == "last":
        if not is_override and recipe.name == RECIPE and (recipe.parent / LAST).exists():
            asked_for = recipe.parent
        others = stem.parent.glob(f"{glob.escape(stem.name)}-*")
        candidates = [asked_for] if asked_for else [stem, *others]
        runs = [candidate for candidate in candidates if (candidate / LAST).exists()]
        if not runs:
            raise FileNotFoundError(f"Expected a run to resume, but {candidates[0] / LAST} does not exist.")
        folder = max(runs, key=lambda run: (run / LAST).stat().st_mtime)
        checkpoint = folder / LAST
    else:
        checkpoint = _expanded("--ckpt_path", ckpt_path)
        if not checkpoint.is_file():
            raise FileNotFoundError(f"Expected a checkpoint or 'last' for --ckpt_path, but got {checkpoint}.")
        home = checkpoint.parent.parent
        is_of_a_run = checkpoint.parent.name == LAST.parent.name and any(
            (home / name).exists() for name in (RECIPE, TRAINING, METRICS)
        )
        folder = asked_for or (home if is_of_a_run else None)
        is_new = folder is None or not (is_of_a_run and folder.resolve() == home.resolve())
    if folder is not None and (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise FileExistsError(f"Expected a folder for --run_dir, but {folder} is a file.")
    _check_name(folder or stem)
    return Choice([folder] if folder else _names(stem), folder is not None, is_new, checkpoint)


def _check_name(folder: Path) -> None:
    """Raise a ValueError if the folder's name is not text: weights and W&B's files cannot be written there."""
    name = str(folder.absolute())
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Expected a --run_dir whose name is text in {sys.getfilesystemencoding()}, as this locale has it, but got "
            f"{name.encode(errors='backslashreplace').decode()}; set PYTHONUTF8=1 if it is UTF-8, or choose another."
        ) from error


def _names(stem: Path) -> Iterator[Path]:
    """Yield free names, checking each on demand."""
    names = itertools.chain([stem], (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2)))
    return (name for name in names if not os.path.lexists(name))


def _expanded(option: str, path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # unknown user, or no home
        raise ValueError(f"Expected a path for {option}, but got {path!r}: {error}") from error


class Owned(FileExistsError):
    """Another process trains in the folder."""


class Claim:
    """A run folder that this process owns until :meth:`release`; no other process can claim it meanwhile.

    The claim is a lock of the operating system, which always ends with the process. On a file system without locks, it
    is a file that names its owner; the file of a dead process on this machine is taken over.

    Args:
        folder: The folder; created if missing.
        must_be_made: Whether to refuse an existing folder.

    Raises:
        FileExistsError: If an existing folder is refused, or holds files that a run must not write to.
        Owned: If another process owns it; the message has its number.
    """

    def __init__(self, folder: Path, *, must_be_made: bool = False) -> None:
        self.folder = folder
        self._made = [part for part in (folder, *folder.parents) if not part.exists()]
        folder.mkdir(parents=True, exist_ok=not must_be_made)
        try:
            _check_kinds(folder)
            self._lock = _lock(folder)
        except BaseException:
            self._remove_made()
            raise

    def check_new(self, recipe: Path) -> None:
        """Raise a FileExistsError if the folder holds a run, or anything that a run of ``recipe`` would overwrite.

        Files of a run that was killed before its first step may be overwritten.
        """
        if (self.folder / LAST).exists() or (self.folder / BEST).exists():
            raise FileExistsError(
                f"Expected a new run folder, but {self.folder} holds a run; resume it with --ckpt_path last, "
                "or choose another --run_dir."
            )
        ours = self.folder / RECIPE
        is_left = ours.is_file() and not ours.samefile(recipe) and _is_resolved(ours) is True
        for name in () if is_left else (*_FILES, *_FOLDERS):
            if (self.folder / name).exists():
                raise FileExistsError(
                    f"Expected a new run folder, but {self.folder} has {name} already, which the run would overwrite; "
                    "choose another --run_dir."
                )

    def check_resumed(self) -> None:
        """Raise a FileExistsError if the resolved recipe would overwrite a user's own recipe."""
        ours = self.folder / RECIPE
        if ours.is_file() and _is_resolved(ours) is False:
            raise FileExistsError(
                f"Expected the resolved recipe of a run, but {ours} is one of your own, which the run would overwrite; "
                "choose another --run_dir, or give it another name."
            )

    def release(self) -> None:
        """Release the folder; remove it if this claim created it and it is empty."""
        if not self._lock.is_locked:
            return
        with contextlib.suppress(OSError):  # it may be gone or read-only
            (self.folder / OWNER).unlink(missing_ok=True)
        self._lock.release()
        self._remove_made()

    def _remove_made(self) -> None:
        """Remove created folders that are empty, the innermost first."""
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def __enter__(self) -> Self:
        """Return the claim; leaving the context releases it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the folder."""
        self.release()


def _check_kinds(folder: Path) -> None:
    """Raise a FileExistsError if a path that a run writes to is a link, or a file instead of a folder or vice versa."""
    for name in (OWNER, MARKER, *_FILES, *_FOLDERS, WANDB, str(LAST), str(BEST)):
        path = folder / name
        below = path.rglob("*") if name in _FOLDERS and not path.is_symlink() else ()
        for part in (path, *below):
            if part.is_symlink():
                raise FileExistsError(
                    f"Expected {part} to be the run's own, but it is a symbolic link to {part.readlink()}, which a run "
                    "would write to; put what it leads to in its place, or choose another --run_dir."
                )
        is_folder = name in (WANDB, *_FOLDERS)
        if path.exists() and path.is_dir() != is_folder:
            expected, got = ("a folder", "a file") if is_folder else ("a file", "a folder")
            raise FileExistsError(f"Expected {expected} at {path}, but it is {got}; choose another --run_dir.")


def _is_resolved(recipe: Path) -> bool | None:
    """Return whether a run wrote this recipe into its folder; None if the recipe is damaged."""
    try:
        found = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError):
        return None
    if not isinstance(found, dict):
        return None
    return bool(found.get("run_dir")) and "ckpt_path" in found


def _lock(folder: Path) -> BaseFileLock:
    """Lock a folder; return the lock."""
    path = folder / OWNER
    lock: BaseFileLock = FileLock(path, thread_local=False, on_acquired=_sign)
    deadline = time.monotonic() + _OWNER_APPEARS
    while True:
        try:
            lock.acquire(blocking=False)
            return lock
        except Timeout as error:
            number, machine = _owner(Path(lock.lock_file))
            if _is_alive(number, machine) or time.monotonic() > deadline:
                who = f"process {number}" if number else "another process"
                where = f" on {machine}" if machine not in ("", socket.gethostname()) else ""
                raise Owned(
                    f"Expected a run folder that nobody uses, but {who}{where} trains in {folder}; wait until it has "
                    "ended, or choose another --run_dir."
                ) from error
            time.sleep(0.02)
        except OSError as error:
            if error.errno not in _NO_LOCKS or isinstance(lock, SoftFileLock):
                raise
            lock = SoftFileLock(folder / MARKER, thread_local=False)


def _sign(descriptor: int) -> None:
    """Write this process's number and machine into the locked file."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n{socket.gethostname()}\n".encode(), 0)


def _owner(path: Path) -> tuple[int, str]:
    """Return the process number and the machine named in a lock file; 0 and "" if there is no name (yet)."""
    with contextlib.suppress(OSError, ValueError):
        number, machine, *_ = path.read_text(encoding="utf-8").splitlines()
        return int(number), machine
    return 0, ""


def _is_alive(number: int, machine: str) -> bool:
    if machine != socket.gethostname():
        return number > 0
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file of a run atomically; create its folder if missing.

    Raises:
        OSError: If the file cannot be written; the old one is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        replace_file(path, content, f"{path.name}.partial")
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk's error lacks the file's name
        raise


def write_json(path: Path, content: object) -> None:
    """Write plain data as JSON, atomically."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if the file is missing or, with a warning, damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    _LOG.warning("%s is damaged: Expected a JSON object, but got something else; it is ignored.", path)
    return {}
