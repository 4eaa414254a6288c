"""Checkpoints of trainings, read as plain data: whatever a file holds, none of it is imported, called or run."""

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
"""Hyper-parameters by which Lightning finds what to import and call; checkpoints of ours have none."""
MODEL_PREFIX = "model."
"""Of the names of what a checkpoint holds of the model."""
_TRAINING_PREFIXES = ("baseline.",)
"""What a checkpoint holds beside the model, and only training needs."""
_MOST_LEVELS = 30
_MOST_VALUES = 1_000_000
"""More than any checkpoint of ours has of dicts and lists within one another, and of what is in them."""
_LONGEST_NAME = 200
"""Of a function or class in a pickle."""
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
"""Instructions that make what a dict may have for keys."""


class Checkpoint(NamedTuple):
    """What a checkpoint says of its model, and whatever else it holds."""

    hyper_parameters: dict[str, Any]
    state: dict[str, Tensor]
    """All tensors of the module, by name: dense ones on the CPU."""
    content: dict[str, Any]
    """The whole checkpoint; what of it is not above was not looked at."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that Lightning wrote.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is none, is damaged, or holds more than plain data; the message begins with the file.
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
        ValueError: If it is not a checkpoint of a model of ours; the message begins with the file.
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
    """Yield all that is within dicts, lists and tuples, but for these.

    Raises:
        ValueError: If there is so much that to go through it would not end: what is within itself, or is referred to
            again and again.
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
    """Say what a tensor is that is not a dense one in memory; return nothing if it is one."""
    if tensor.device.type != "cpu":
        return f"one without values (device {tensor.device.type})" if tensor.is_meta else f"one on {tensor.device.type}"
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else str(tensor.layout)
        return f"one that is not dense ({kind})"
    return ""


def _load(path: Path) -> object:
    """Return what a checkpoint holds, if that is plain data and whole."""
    damaged = f"{shown(path)}: Expected a whole checkpoint, but got a damaged file or one of another kind"
    wrong = _what_is_wrong_with_archive(path)
    if wrong:
        raise ValueError(f"{damaged}: {wrong}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is in it that ours have not, which is refused below
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
    """Say what is wrong with the archive that a checkpoint is: torch itself does not notice changed bytes."""
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
    """Say what in a pickle would keep its reader busy without an end, going by its instructions; none is followed.

    A few hundred bytes can refer to one another so that written out they fill a disk. The reader writes out what is
    called and is no function, searches names in quadratic time, and hashes keys and tuples.
    """
    stack: list[tuple[object, int]] = []
    """By which instruction everything came about, and for tuples, how many there are in it if each is counted anew."""
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
