"""Atomic replacement of files: readers find the old or the new one, even if the process is killed."""

from __future__ import annotations

import contextlib
from pathlib import Path


def replace_file(path: Path, content: bytes, partial: str) -> None:
    """Write a new file beside ``path``, then put it in its place.

    Args:
        path: Where to; its folder must exist. A symbolic link is replaced, not followed.
        content: What the file will hold.
        partial: Temporary name of the new file, which no other process uses; a file of this name is removed.

    Raises:
        OSError: If it cannot be written; ``path`` is then unchanged.
    """
    new = path.with_name(partial)
    try:
        new.unlink(missing_ok=True)  # left by a killed process
        with new.open("xb") as file:
            file.write(content)
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk needs the space
            new.unlink(missing_ok=True)
        raise
