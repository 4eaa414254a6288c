"""The schema of ``config.json``, checked completely before anything is built from it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from lightning_ham import __version__
from lightning_ham.controllers import added_options, complete_options, controller_names
from lightning_ham.foreign import closest_to, quoted, shown
from lightning_ham.hub.files import CONFIG, MAX_BYTES
from lightning_ham.tasks import get_task

FORMAT_VERSION = 1
"""Raised when older versions could no longer read new folders."""

MAX_SIZE = 1 << 14
"""Largest whole number in an option of a controller; real models stay far below."""

_MAX_LEVELS = 4
"""Most levels of nested lists in an option."""
_MAX_DIGITS = 4300
"""Most digits of a number: Python's default limit, which may be lifted; longer numbers are slow to read."""


class ModelConfig(TypedDict):
    """The content of ``config.json``: everything needed to build a model, except its weights."""

    format_version: int
    lightning_ham_version: str
    """Version of the package that saved the model."""
    task: str
    controller: str
    controller_options: dict[str, Any]
    """All options of the controller, defaults included."""
    weights_sha256: NotRequired[str]
    """SHA-256 of the file of weights, in hexadecimal digits; missing in older models."""


_KINDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false", dict: "an object"}
_SCHEMA: dict[str, type] = {
    "format_version": int,
    "lightning_ham_version": str,
    "task": str,
    "controller": str,
    "controller_options": dict,
    "weights_sha256": str,
}
_OPTIONAL = {"weights_sha256"}
_SHA256 = re.compile("[0-9a-f]{64}")


def make_config(
    task: str, controller: str, controller_options: dict[str, Any], weights_sha256: str | None = None
) -> ModelConfig:
    """Return the checked configuration of a model, with the digest of its weights if there is one.

    Raises:
        ValueError: If there is no such task, controller or option, or a value is invalid.
    """
    return parse_config(
        {
            "format_version": FORMAT_VERSION,
            "lightning_ham_version": __version__,
            "task": task,
            "controller": controller,
            "controller_options": controller_options,
        }
        | ({} if weights_sha256 is None else {"weights_sha256": weights_sha256})
    )


def read_config(path: Path) -> ModelConfig:
    """Read and check a ``config.json``.

    Raises:
        ValueError: If the file is not JSON, or does not match the schema; the message names the file and the key.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{shown(path)}: Expected at most {MAX_BYTES:,} bytes, but got a larger file.")
    try:
        data = json.loads(content, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"{shown(path)}: Expected JSON of a few levels, but got far deeper nesting.") from None
    except ValueError as error:
        raise ValueError(f"{shown(path)}: Expected JSON in UTF-8, but got: {shown(error)}") from error
    try:
        return parse_config(data)
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from error


def is_of(config: ModelConfig, content: bytes) -> bool:
    """Return whether weights match the hash of a configuration, if it has one."""
    return config.get("weights_sha256") in (None, hashlib.sha256(content).hexdigest())


def check_weights(config: ModelConfig, content: bytes, file: Path) -> None:
    """Raise a ValueError if weights do not match the hash of a configuration."""
    if not is_of(config, content):
        found, expected = hashlib.sha256(content).hexdigest(), config["weights_sha256"]
        raise ValueError(
            f"{shown(file)}: Expected a whole safetensors file, but got: one with another hash than {CONFIG} tells "
            f"(SHA-256 {found[:12]}..., not {expected[:12]}...). It is damaged, or of another model; fetch or save it "
            "again."
        )


def parse_config(data: object) -> ModelConfig:
    """Return ``data`` as a configuration if it matches the schema.

    Raises:
        ValueError: If it does not; the message names the key and says what to do.
    """
    if not isinstance(data, dict):
        raise ValueError(f"Expected an object with the keys {_listed(_SCHEMA)}, but got {quoted(data)}.")
    version = data.get("format_version", FORMAT_VERSION)
    if type(version) is int and version > FORMAT_VERSION:  # checked first, as a newer format may have other keys
        raise ValueError(
            f"Expected key 'format_version' to be {FORMAT_VERSION}, but got {quoted(version)}: a newer lightning_ham "
            f"({shown(data.get('lightning_ham_version'), 40)}; this is {__version__}) saved the model. Upgrade with "
            "`pip install --upgrade lightning-ham`."
        )
    for key in data:
        if key not in _SCHEMA:
            raise ValueError(f"Unknown key {quoted(key)};{_hint(key, _SCHEMA)} Known keys: {_listed(_SCHEMA)}.")
    for key, kind in _SCHEMA.items():
        if key not in data:
            if key in _OPTIONAL:
                continue
            raise ValueError(f"Expected the keys {_listed(_SCHEMA)}, but {key!r} is missing; save the model again.")
        _expect_kind(key, data[key], kind)
    if version != FORMAT_VERSION:
        raise ValueError(f"Expected key 'format_version' to be {FORMAT_VERSION}, but got {quoted(version)}.")
    if not _SHA256.fullmatch(data.get("weights_sha256", "0" * 64)):
        raise ValueError(
            "Expected key 'weights_sha256' to be a SHA-256 in 64 hexadecimal digits, but got "
            f"{quoted(data['weights_sha256'])}."
        )
    _check_names(data["task"], data["controller"])
    _check_options(data["controller"], data["controller_options"])
    return cast(ModelConfig, data)


def _check_names(task: str, controller: str) -> None:
    try:
        get_task(task)
    except ValueError as error:
        raise ValueError(f"key 'task': {error}") from error
    known = controller_names()
    if controller not in known:
        raise ValueError(
            f"key 'controller': Unknown controller {quoted(controller)};{_hint(controller, known)} "
            f"Known controllers: {_listed(known)}."
        )


def _check_options(controller: str, options: Mapping[str, Any]) -> None:
    """Check that every option is present, has the type of its default, and is no absurd number."""
    for name in options:
        if type(name) is not str:  # impossible in JSON, but not in a checkpoint
            raise ValueError(f"Expected key 'controller_options' to have names of options, but got {quoted(name)}.")
    try:
        complete = complete_options(controller, options)
    except ValueError as error:
        raise ValueError(f"key 'controller_options': {error}") from error
    added = added_options(controller)
    for name in complete:
        key = f"controller_options.{name}"
        if name not in options:
            if name in added:
                continue
            raise ValueError(f"Expected key {key!r}, but it is missing; save the model again.")
        _expect_plain(key, options[name])
        default = _default(controller, options, name)
        if type(default) in _KINDS:
            _expect_kind(key, options[name], type(default))


def _default(controller: str, options: Mapping[str, Any], name: str) -> object:
    """Return the default of an option; None without one."""
    others = {other: options[other] for other in options if other != name}
    try:
        return complete_options(controller, others)[name]
    except ValueError:
        return None


def _expect_plain(key: str, value: object, levels: int = _MAX_LEVELS) -> None:
    """Check that a value has JSON's types and reasonable numbers."""
    if isinstance(value, list) and levels > 0:
        for index, item in enumerate(value):
            _expect_plain(f"{key}[{index}]", item, levels - 1)
    elif value is not None and type(value) not in (bool, int, float, str):
        raise ValueError(f"Expected key {key!r} to be a plain value or a list of such, but got {quoted(value)}.")
    elif type(value) is int and abs(value) > MAX_SIZE:
        raise ValueError(f"Expected key {key!r} to be at most {MAX_SIZE:,}, but got {quoted(value)}.")
    elif type(value) is float and not math.isfinite(value):
        raise ValueError(f"Expected key {key!r} to be a finite number, but got {value}.")


def _expect_kind(key: str, value: object, kind: type) -> None:
    """Check the type strictly: true is not an integer, but an integer is a number."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise ValueError(f"Expected key {key!r} to be {_KINDS[kind]}, but got {quoted(value)}.")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key twice in one object")
    return result


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name}, which is not JSON")


def _hint(word: str, known: Iterable[str]) -> str:
    closest = closest_to(word, known)
    return f" did you mean {closest!r}?" if closest else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
