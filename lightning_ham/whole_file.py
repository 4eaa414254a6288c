"""Files that are there whole or not at all, whoever reads them or ends the process meanwhile."""

from __future__ import annotations

import contextlib
from pathlib import Path


def replace_file(path: Path, content: bytes, partial: str) -> None:
    """Write a new file beside ``path``, then put it in its place.

    Args:
        path: Where to; its folder must be there. A symbolic link is replaced, not followed.
        content: What the file will hold.
        partial: Name of the new file until then, which no other process writes to. What has it already is removed.

    Raises:
        OSError: If it cannot be written; what was at ``path`` is then as it was.
    """
    new = path.with_name(partial)
    try:
        new.unlink(missing_ok=True)  # of a process that was killed
        with new.open("xb") as file:
            file.write(content)
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # on a full disk, its room is wanted
            new.unlink(missing_ok=True)
        raise
