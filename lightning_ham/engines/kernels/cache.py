"""A cache on disk for compiled loops.

Numba's own cache falls short: it checks only the file of the function itself, and so keeps code compiled from outdated
versions of other files; it trusts damaged files; and it raises an error if it can write to no folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import pickle
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import llvmlite
import numba as nb
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from lightning_ham.whole_file import replace_file

_LOG = logging.getLogger(__name__)
_CONFIG: Any = nb.config  # type checkers do not see its settings, which are set at import


def _digest_of_sources() -> bytes:
    """Return a hash of all files of this package and the constants: compiled code may depend on any."""
    digest = hashlib.sha256()
    constants = files("lightning_ham").joinpath("memory", "constants.py")
    with suppress(OSError):  # another version may be replacing the package right now
        for file in sorted([*files(__package__).iterdir(), constants], key=lambda file: file.name):
            if file.name.endswith((".py", ".pyc")):
                digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


_SOURCES = _digest_of_sources()  # set before other modules of the package run, as they import this one first


class CompiledOnDisk:
    """Numba's cache for one function: a file per compiled version, in the first folder that can be written.

    A file's name holds a hash of all that its code depends on: the sources, the types of the arguments, the processor,
    and the versions of Python and the compiler. The file begins with a hash of its content. Folders: NUMBA_CACHE_DIR,
    the ``__pycache__`` beside the function's file, and the user's cache folder. If none can be written, one warning
    says so, and every process compiles the loops.

    Args:
        function: The Python function.
    """

    _has_warned: ClassVar[bool] = False

    def __init__(self, function: Callable[..., Any]) -> None:
        self._file = Path(function.__code__.co_filename).absolute()
        self._own = hashlib.sha256(self._file.read_bytes()).digest() if self._file.is_file() else b""
        name = f"{self._file.stem}.{function.__qualname__}".replace("<", "").replace(">", "")
        self._prefix = f"{name}.{sys.implementation.cache_tag}."

    @property
    def cache_path(self) -> str:
        """The first folder, for Numba's statistics."""
        return str(next(self._folders()))

    def load_overload(self, signature: Any, target: Any) -> CompileResult | None:
        """Return the version compiled for ``signature``, or None if it is missing or damaged."""
        target.refresh()
        name = self._name(signature, target.codegen())
        if name is None:
            return None
        for folder in self._folders():
            try:
                content = (folder / name).read_bytes()
            except OSError:
                continue
            digest, data = content[:32], content[32:]
            if hashlib.sha256(data).digest() == digest:
                return CompileResult._rebuild(target, *pickle.loads(data))  # noqa: SLF001 - as Numba's own cache does
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Save the version compiled for ``signature``; remove versions compiled from other sources."""
        name = self._name(signature, result.codegen)
        if name is None or result.library.has_dynamic_globals:
            return
        data = dumps(result._reduce())  # noqa: SLF001
        problem = None
        for folder in self._folders():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                replace_file(folder / name, hashlib.sha256(data).digest() + data, f"{name}.{uuid.uuid4().hex}")
            except OSError as error:
                problem = problem or error
                continue
            self._remove(folder, stale=True)
            return
        if not CompiledOnDisk._has_warned:
            CompiledOnDisk._has_warned = True
            _LOG.warning(
                "Compiled loops cannot be kept (%s), so every process compiles them again, which takes up to a minute. "
                "Set NUMBA_CACHE_DIR to a folder that can be written.",
                problem,
            )

    def flush(self) -> None:
        """Remove all versions of this function."""
        for folder in self._folders():
            self._remove(folder, stale=False)

    def _name(self, signature: Any, codegen: Any) -> str | None:
        """Return the file name for ``signature``; None if the sources may have changed since the import."""
        if _digest_of_sources() != _SOURCES or not self._own:
            return None
        depends_on = (
            str(signature),
            codegen.magic_tuple(),  # the processor
            (nb.__version__, llvmlite.__version__),
            (_CONFIG.OPT, _CONFIG.BOUNDSCHECK, _CONFIG.LOOP_VECTORIZE, _CONFIG.SLP_VECTORIZE),
        )
        return f"{self._prefix}{self._stamp}.{hashlib.sha256(repr(depends_on).encode()).hexdigest()[:32]}.nbc"

    @property
    def _stamp(self) -> str:
        return hashlib.sha256(_SOURCES + self._own).hexdigest()[:16]

    def _folders(self) -> Iterator[Path]:
        for_this_package = f"lightning_ham-{hashlib.sha256(os.fsencode(self._file.parent)).hexdigest()[:16]}"
        if _CONFIG.CACHE_DIR:
            yield Path(_CONFIG.CACHE_DIR, for_this_package)
        yield Path(importlib.util.cache_from_source(str(self._file))).parent
        of_user = Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)
        if of_user.is_absolute():  # without a home, this would be a folder ~ right here
            yield of_user / for_this_package

    def _remove(self, folder: Path, *, stale: bool) -> None:
        """Remove versions of this function in ``folder``: all, or those compiled from other sources (``stale``)."""
        with suppress(OSError):
            for path in folder.iterdir():
                ours = path.name.startswith(f"{self._prefix}{self._stamp}.")
                if path.name.startswith(self._prefix) and not (stale and ours):
                    path.unlink(missing_ok=True)
