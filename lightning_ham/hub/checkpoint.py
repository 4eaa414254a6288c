"""Reads checkpoints as plain data: it never imports, calls or runs anything from a file."""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ham.foreign import quoted, shown
from lightning_ham.hub.config import ModelConfig, make_config

_CODE = ("_instantiator", "_class_path")
"""Hyper-parameters that tell Lightning what to import and call; our checkpoints have none."""
MODEL_PREFIX = "model."
"""Prefix of the model's tensors in a checkpoint."""
_TRAINING_PREFIXES = ("baseline.",)
"""Prefixes of other tensors in a checkpoint, which only training needs."""
_MOST_LEVELS = 30
_MOST_VALUES = 1_000_000
"""Limits for nested dicts and lists and for the values in them; our checkpoints stay below."""
_LONGEST_NAME = 200
"""Longest name of a function or class in a pickle."""
_MOST_IN_TUPLES = 10_000
_KEYS = {
    "BINUNICODE",
    "SHORT_BINSTRING",
    "BININT",
    "BININT1",
    "BININT2",
    "BINFLOAT",
    "LONG1",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
}
"""Pickle instructions whose results may be keys of a dict."""


class Checkpoint(NamedTuple):
    """The content of a checkpoint."""

    hyper_parameters: dict[str, Any]
    state: dict[str, Tensor]
    """All tensors of the module, by name: dense, on the CPU."""
    content: dict[str, Any]
    """The whole checkpoint; only the fields above, and all tensors, have been checked."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that Lightning wrote.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a checkpoint, is damaged, or holds more than plain data; the message begins with the
            file.
    """
    content = _load(path)
    parts = content if isinstance(content, dict) else {}
    hyper_parameters, state = parts.get("hyper_parameters"), parts.get("state_dict")
    if not isinstance(hyper_parameters, dict) or not isinstance(state, dict):
        raise ValueError(f"{shown(path)}: Expected a checkpoint of lightning_ham, but got one of something else.")
    for mapping in (parts, hyper_parameters, state):
        for name in mapping:
            if type(name) is not str:
                raise ValueError(f"{shown(path)}: Expected names in a checkpoint to be text, but got {quoted(name)}.")
    for name in _CODE:
        if name in hyper_parameters:
            raise ValueError(
                f"{shown(path)}: Expected plain hyper-parameters, but {name!r} names code to run "
                f"({quoted(hyper_parameters[name])}): it is refused."
            )
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            name = quoted(name.removeprefix(MODEL_PREFIX))
            raise ValueError(f"{shown(path)}: Expected {name} to be a tensor, but got {type(tensor).__name__}.")
    tensors = (value for value in leaves(parts, path) if isinstance(value, Tensor))
    for number, tensor in enumerate(tensors):
        wrong = _what_is_wrong(tensor)
        if wrong:
            names = [quoted(name.removeprefix(MODEL_PREFIX)) for name, value in state.items() if value is tensor]
            what = names[0] if names else f"tensor {number + 1}"
            raise ValueError(f"{shown(path)}: Expected {what} to be a dense tensor in memory, but got {wrong}.")
    return Checkpoint(hyper_parameters, state, parts)


def read_model(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return the configuration and the weights of the model in a checkpoint.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a checkpoint of our models; the message begins with the file.
    """
    checkpoint = read_checkpoint(path)
    names = ("task", "controller", "controller_options")
    for name in names:
        if name not in checkpoint.hyper_parameters:
            raise ValueError(f"{shown(path)}: Expected a checkpoint with hyper-parameter {name!r}, but it has none.")
    try:
        config = make_config(*(checkpoint.hyper_parameters[name] for name in names))
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from error
    tensors = {}
    for name, tensor in checkpoint.state.items():
        if name.startswith(MODEL_PREFIX):
            tensors[name.removeprefix(MODEL_PREFIX)] = tensor
        elif not name.startswith(_TRAINING_PREFIXES):
            raise ValueError(f"{shown(path)}: Expected weights of a model, but {quoted(name)} is not one of them.")
    return config, tensors


def leaves(content: object, path: Path) -> Iterator[object]:
    """Yield all values in nested dicts, lists and tuples.

    Raises:
        ValueError: If there are too many levels or values, as when a container holds itself or is referred to many
            times.
    """
    levels = [iter([content])]
    for _ in range(_MOST_VALUES):
        value = next(levels[-1], levels)
        if value is levels:
            levels.pop()
            if not levels:
                return
        elif not isinstance(value, dict | list | tuple):
            yield value
        elif len(levels) <= _MOST_LEVELS:
            levels.append(iter(value.values() if isinstance(value, dict) else value))
        else:
            break
    raise ValueError(
        f"{shown(path)}: Expected a checkpoint of a training, but got one of over {_MOST_LEVELS} levels or "
        f"{_MOST_VALUES:,} values."
    )


def _what_is_wrong(tensor: Tensor) -> str:
    """Describe why a tensor is not dense in memory; return "" if it is."""
    if tensor.device.type != "cpu":
        return f"one without values (device {tensor.device.type})" if tensor.is_meta else f"one on {tensor.device.type}"
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else str(tensor.layout)
        return f"one that is not dense ({kind})"
    return ""


def _load(path: Path) -> object:
    """Return the content of a checkpoint, if it is complete and only plain data."""
    damaged = f"{shown(path)}: Expected a whole checkpoint, but got a damaged file or one of another kind"
    wrong = _what_is_wrong_with_archive(path)
    if wrong:
        raise ValueError(f"{damaged}: {wrong}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unexpected content, which is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"refers to {quoted(found[1])}" if found else "holds other objects"
        raise ValueError(
            f"{shown(path)}: Expected a checkpoint of tensors and plain data, but it {what}: loading it could run "
            "code of its own, and is refused."
        ) from error
    except OSError:
        raise
    except Exception as error:  # a forged pickle makes it fail in every way
        raise ValueError(f"{damaged}: {shown(str(error).partition('.')[0] or type(error).__name__)}.") from error


def _what_is_wrong_with_archive(path: Path) -> str:
    """Describe what is wrong with a checkpoint's archive, or return "": torch itself misses changed bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                return "it is compressed, which those of PyTorch are not"
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                return "it has parts that lie in one another"
            changed = archive.testzip()
            if changed is not None:
                return f"the checksum of {quoted(changed)} is wrong"
            pickles = (entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
            return next(filter(None, (_what_is_wrong_with_pickle(archive.read(entry)) for entry in pickles)), "")
    except OSError:
        raise
    except Exception as error:  # a forged archive makes it fail in every way
        return shown(error) or type(error).__name__


def _what_is_wrong_with_pickle(content: bytes) -> str:
    """Describe content of a pickle that would keep its reader busy forever, or return ""; execute nothing.

    A few hundred bytes can refer to each other so that their text would fill a disk. The reader writes out an object
    that is called but is not a function, searches names in quadratic time, and hashes keys and tuples.
    """
    stack: list[tuple[object, int]] = []
    """For each object, the instruction that made it and, for tuples, their number in it, repeated ones included."""
    memo: dict[object, tuple[object, int]] = {}
    for instruction, argument, _ in pickletools.genops(content):
        name, before = instruction.name, instruction.stack_before
        marked: list[tuple[object, int]] = []
        if pickletools.markobject in before:
            while (top := stack.pop())[0] != "MARK":
                marked.append(top)
            marked.reverse()
            before = before[: before.index(pickletools.markobject)]
        taken = [stack.pop() for _ in before]
        size = 1 + sum(size for _, size in [*taken, *marked]) if name.startswith("TUPLE") else 1
        keys = {"SETITEM": taken[1:2], "SETITEMS": marked[::2]}.get(name, [])
        if name == "GLOBAL" and len(str(argument)) > _LONGEST_NAME:
            return f"it refers to {quoted(argument)}"
        if name in ("REDUCE", "NEWOBJ") and taken[1][0] != "GLOBAL":
            return "it calls what is no function"
        if size > _MOST_IN_TUPLES or any(kind not in _KEYS for kind, _ in keys):
            return "it has keys or tuples that no training writes"
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            stack.extend((name, size) for _ in instruction.stack_after)
    return ""
