"""Outputs of commands: files, written atomically, and standard output, devices and pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from lightning_ham.whole_file import replace_file

_STREAMS = {
    "-": "stdout",
    "/dev/stdout": "stdout",
    "/dev/fd/1": "stdout",
    "/dev/stderr": "stderr",
    "/dev/fd/2": "stderr",
}


def is_stream(name: str) -> bool:
    """Return whether a name is not a file: standard output (also ``-``) or error, a device, a pipe."""
    path = Path(name)
    is_other = path.exists() and not path.is_file() and not path.is_dir()
    return name in _STREAMS or path.absolute().is_relative_to("/dev") or is_other


def check_place(name: str) -> None:
    """Raise a ValueError if the folder of an output is missing, or the output is a folder."""
    if name not in _STREAMS and (not Path(name).parent.is_dir() or Path(name).is_dir()):
        raise ValueError(f"Expected a file in a folder that is there, but got {name}")


def are_one(first: str, second: str) -> bool:
    """Return whether two outputs are the same place, by any name or link.

    ``/dev/null`` never counts as the same, nor do standard output and error.
    """
    streams = _STREAMS.get(first), _STREAMS.get(second)
    if all(streams):
        return streams[0] == streams[1]
    one, other = (
        Path(f"/dev/{stream}" if stream else name) for stream, name in zip(streams, (first, second), strict=True)
    )
    try:
        return one.samefile(other) and not one.samefile(os.devnull)
    except OSError:  # at least one does not exist
        return one.resolve() == other.resolve()


def is_read(name: str, sources: Iterable[str]) -> bool:
    """Return whether a file is one of the inputs; ``-`` is standard input, which may come from a file."""
    paths = (Path("/dev/stdin" if source == "-" else source) for source in sources)
    return Path(name).is_file() and any(path.samefile(name) for path in paths if path.exists())


def write(name: str, content: str | bytes) -> None:
    """Write a file atomically; write to a stream directly.

    Unlike `runs.folder.write_whole`, this creates no folders and leaves files of killed processes.

    Args:
        name: The output.
        content: Bytes, or text to write in UTF-8.
    """
    if name in _STREAMS and isinstance(content, str):  # opening a redirected stream again would overwrite its content
        getattr(sys, _STREAMS[name]).write(content)
        return
    data = content.encode() if isinstance(content, str) else content
    if is_stream(name):
        with Path(name).open("ab") as device:
            device.write(data)
        return
    path = Path(name).resolve()
    replace_file(path, data, f".{path.name}.{os.getpid()}")


def check_places(output: str, trace: str | None, files: Iterable[str]) -> None:
    """Raise a ValueError if answers and trace would overwrite each other, or the trace an input.

    The answers may replace the input.
    """
    check_place(output)
    if trace is None:
        return
    check_place(trace)
    if are_one(output, trace):
        got = "standard output" if output == "-" else output
        raise ValueError(f"Expected different places for the answers and the trace, but got {got} and {trace}")
    if is_read(trace, files):
        raise ValueError(f"Expected a place for the trace that is no input, but got {trace}")
