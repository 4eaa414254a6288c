"""The formats by name, and writing a model in one of them.

To add a format, write a module with a :data:`Format`, and add a line to the registry below. In a package of your own,
use an entry point of the group ``lightning_ham.export_formats`` instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from lightning_ham.foreign import shown
from lightning_ham.hub import TrainedModel
from lightning_ham.registry import Registry
from lightning_ham.whole_file import replace_file

Format = Callable[[TrainedModel, str], Mapping[str, bytes]]
"""Returns the files of an export, contents by names, for a model and its name. The last file describes the others."""

_FORMATS: Registry[Format] = Registry(
    "format",
    group="lightning_ham.export_formats",
    built_in={
        "json": "lightning_ham.exporting.json_file:to_json",
        "onnx": "lightning_ham.exporting.onnx_graphs:to_onnx",
    },
)


def format_names() -> list[str]:
    """Return the names of all formats, built-in and registered, sorted."""
    return _FORMATS.names()


def export_model(model: TrainedModel, name: str, form: str, folder: str | os.PathLike[str]) -> list[Path]:
    """Write a model in a format; return the files written.

    Nothing is written before all files are complete in memory. The last file describes the others: it is removed first
    and written last, so that an interrupted export does not look complete.

    Args:
        model: The model.
        name: Its name, for the export to tell.
        form: Name of the format.
        folder: Where to; created if missing. Files of the same names are replaced.

    Raises:
        ImportError: If the format needs a package that is not installed.
        OSError: If the folder cannot be written to; ``NotADirectoryError`` if it is a file.
        ValueError: If the format is unknown, or cannot express the model.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"Expected a folder to export to, but got the file {shown(folder)}.")
    files = _FORMATS.get(form)(model, name)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / file for file in files]
    if len(paths) > 1:
        paths[-1].unlink(missing_ok=True)
    for path, content in zip(paths, files.values(), strict=True):
        replace_file(path, content, f".{path.name}.{os.getpid()}")
    return paths
