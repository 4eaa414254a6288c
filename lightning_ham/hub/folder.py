"""Reads the folder of a saved model: matching configuration and weights, complete and finite."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from lightning_ham.foreign import quoted, shown
from lightning_ham.hub.config import ModelConfig, is_of, read_config
from lightning_ham.hub.files import CONFIG, MAX_WEIGHTS, NEEDED, WEIGHTS, has, saved

_MAX_HEADER = 1 << 20
"""Most bytes of the list of tensors in a file; real ones have a few thousand."""
_TRIES = 20
"""Most attempts to read a folder while others save to it."""


def write_weights(state: Mapping[str, Tensor]) -> bytes:
    """Return the content of the file of weights, for tensors on any device and in any memory layout."""
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
    return safetensors.torch.save(tensors, metadata={"format": "pt"})


def read_folder(folder: Path) -> tuple[ModelConfig, bytes]:
    """Return the configuration in a folder and the content of the matching file of weights.

    If they do not match because a model was saved between reading the two, both are read again. If the folder has not
    changed, they are returned anyway: other checks report the mismatch.
    """
    before = None
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            found = _read_folder_once(folder)
            stat = saved(folder, WEIGHTS).stat()
            if is_of(*found) or before == (stat.st_ino, stat.st_ctime_ns):
                return found
            before = stat.st_ino, stat.st_ctime_ns
    return _read_folder_once(folder)


def _read_folder_once(folder: Path) -> tuple[ModelConfig, bytes]:
    for name in NEEDED:
        if not has(folder, name):
            raise FileNotFoundError(
                f"Expected a folder with {CONFIG} and {WEIGHTS}, but {shown(folder)} has no {name}."
            )
    config = read_config(saved(folder, CONFIG))
    with saved(folder, WEIGHTS).open("rb") as file:
        content = file.read(MAX_WEIGHTS + 1)
    if len(content) > MAX_WEIGHTS:
        raise ValueError(f"{shown(folder / WEIGHTS)}: Expected at most {MAX_WEIGHTS:,} bytes, but got a larger file.")
    return config, content


def parse_weights(weights: bytes, file: Path) -> dict[str, Tensor]:
    """Return the tensors in the content of a file of weights.

    Raises:
        ValueError: If it is not such a file, or its header is too large.
    """
    whole = f"{shown(file)}: Expected a whole safetensors file, but got"
    header = int.from_bytes(weights[:8], "little")
    if header > _MAX_HEADER:
        raise ValueError(f"{whole}: a header of {header:,} bytes (at most {_MAX_HEADER:,}); fetch or save it again.")
    try:
        return safetensors.torch.load(weights)
    except Exception as error:  # its errors come from Rust or torch, with or without text
        reason = shown(error) or type(error).__name__
        raise ValueError(f"{whole}: {reason}; fetch or save it again.") from error


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    """Raise a ValueError unless ``tensors`` are finite and have exactly the names, shapes and types of ``expected``."""
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    for names, complaint in ((missing, "is missing"), (unexpected, "is not one of the model's")):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(
                f"{shown(file)}: Expected exactly the weights of the model, but {quoted(names[0])} {complaint}{others}."
            )
    for name, like in expected.items():
        got = tensors[name]
        if got.shape != like.shape:
            shape = quoted(list(got.shape))
            raise ValueError(f"{shown(file)}: Expected {name!r} of shape {list(like.shape)}, but got {shape}.")
        if got.dtype != like.dtype:
            raise ValueError(f"{shown(file)}: Expected {name!r} of type {like.dtype}, but got {got.dtype}.")
        if not got.isfinite().all():
            raise ValueError(
                f"{shown(file)}: Expected finite numbers in {name!r}, but got nan or inf: its training broke up."
            )
