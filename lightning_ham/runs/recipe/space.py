"""The space of a sweep: the section ``sweep`` of a recipe, which says between which values to search for each key.

A key has a range, ``{low: 1e-4, high: 1e-2, log: true}`` or ``{low: 32, high: 128, step: 32}``, or choices,
``{choices: [choice, mlp]}``; the words are Optuna's. ``loguniform(1e-4, 1e-2)``, ``uniform(32, 128, 32)`` and
``choice(choice, mlp)`` say the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_origin

import yaml

from lightning_ham.arguments import expect_number
from lightning_ham.foreign import closest_to, quoted
from lightning_ham.runs.recipe.keys import given_by, is_plain, is_section, key_types, loaded, members

SWEEP = "sweep"
"""Name of the section."""

FORMS = "{low: 1e-4, high: 1e-2, log: true}, {low: 32, high: 128, step: 32} or {choices: [a, b]}"
"""Examples of what a key of a space may have."""

_WORDS = ("low", "high", "log", "step", "choices")
_MOST_CHOICES = 1000
_COMPARED = "trials are compared by it, so that it must be the same for all"
_NOT_SEARCHED = {
    "seed_everything": "the seeds of a trial are counted from the recipe's; use --seeds",
    "task": _COMPARED,
    "threads": "use --threads",
    "run_dir": "every training of a sweep has a folder of its own",
    "ckpt_path": "every training of a sweep starts anew",
    "wandb": "it does not change what is learned",
    "hub": "a sweep publishes nothing",
    "evaluation": _COMPARED,
    "stop": _COMPARED,
    "data.capacity": _COMPARED,
    "data.variant": _COMPARED,
    "data.validation_lengths": _COMPARED,
    "data.validation_episodes": _COMPARED,
    "trainer.max_time": "use --budget",
}
"""Keys and sections that a space may not have, each with the reason."""


class Dimension(NamedTuple):
    """The values of one key: a range, or choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    """Whether values are drawn uniformly on a logarithmic scale."""
    step: float | None = None
    """Distance of neighbouring values; any value of the range if None."""
    is_integer: bool = False
    choices: tuple[str | int | float | bool | None, ...] | None = None
    """Lists and mappings are text in YAML."""
    place: str = ""
    """Where it stands, for errors: the file and the line, or the option."""

    @property
    def corners(self) -> tuple[Any, ...]:
        """Values that a recipe must take: both ends of the range, or all choices."""
        return (self.low, self.high) if self.choices is None else self.choices


Space = dict[str, Dimension]


def override(key: str, value: Any) -> str:
    """Return the option of ``fit`` that sets a key.

    >>> override("data.batch_size", 64), override("model.reinforce", None), override("model.attention", "soft")
    ('--data.batch_size=64', '--model.reinforce=null', '--model.attention=soft')
    """
    if value is None or isinstance(value, bool):
        value = {None: "null", True: "true", False: "false"}[value]
    return f"--{key}={value}"


def read_space(section: Any, recipe: Path) -> Space:
    """Return the space in the section ``sweep`` of a recipe; an empty one if there is none.

    Raises:
        ValueError: If it is wrong; the message has the key, the line, and what is allowed.
    """
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise ValueError(
            f"{_place(recipe, '')}: Expected section {SWEEP!r} to hold keys of the recipe, each with {FORMS}, but got "
            f"{quoted(section)}."
        )
    return {key: _dimension(key, value, _place(recipe, key)) for key, value in _flattened(section)}


def read_option(text: str) -> tuple[str, Dimension]:
    """Return the key and the dimension of an option ``KEY=VALUES``.

    >>> read_option("model.schedule.learning_rate=loguniform(1e-4, 1e-2)")[1].high
    0.01

    Raises:
        ValueError: See :func:`read_space`.
    """
    key, sign, values = text.partition("=")
    if not sign:
        raise ValueError(f"--space {quoted(text)}: Expected KEY=VALUES, where VALUES is {FORMS}.")
    return key.strip(), _dimension(key.strip(), loaded(values), "--space")


def _flattened(section: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of a section with dots, and their values."""
    for name, value in section.items():
        key = f"{prefix}{name}"
        has_keys = is_section(key) or (key in key_types() and not is_plain(key_types()[key]))
        if has_keys and isinstance(value, Mapping) and not set(value) & set(_WORDS):
            yield from _flattened(value, f"{key}.")
        else:
            yield key, value


def _place(recipe: Path, key: str) -> str:
    """Return the file and the line of a key of the space."""
    root = yaml.compose(recipe.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    wanted = f"{SWEEP}.{key}".rstrip(".")
    waiting = [(root, "")]
    while waiting:
        node, prefix = waiting.pop()
        for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
            found = f"{prefix}{name.value}"
            if found == wanted:
                return f"{recipe}, line {name.start_mark.line + 1}"
            waiting.append((value, f"{found}."))
    return str(recipe)


def _dimension(key: str, value: Any, place: str) -> Dimension:
    """Return the dimension of a key, which stands at ``place``."""
    try:
        _check_key(key)
        return _checked(key, _as_mapping(value))._replace(place=place)
    except ValueError as error:
        message = re.sub(r"argument `(\w+)`", r"\1", str(error))
        raise ValueError(f"{place}: in the space of {key!r}: {message}") from error


def _check_key(key: str) -> None:
    """Raise a ValueError unless a sweep may search for values of a key."""
    for known, reason in _NOT_SEARCHED.items():
        if key == known or key.startswith(f"{known}."):
            raise ValueError(f"Expected another key, as {reason}.")
    if not re.fullmatch(r"[\w.]+", key) or not list(given_by([f"--{key}=null"])):  # which refuses an unknown key
        raise ValueError(f"Expected a key of the recipe, but got {quoted(key)}.")
    if is_section(key):
        inner = ", ".join(sorted(known for known in key_types() if known.startswith(f"{key}.")))
        raise ValueError(f"Expected one of its keys ({inner}), but got the whole section.")


def _as_mapping(value: Any) -> Mapping[str, Any]:
    """Return what a key has as a mapping of :data:`_WORDS`."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", value, re.DOTALL)):
        arguments = loaded(f"[{match[2]}]")
        function, numbers = match[1], arguments if isinstance(arguments, list) else []
        if function == "choice" and numbers:
            return {"choices": numbers}
        if function == "loguniform" and len(numbers) == 2:
            return {"low": numbers[0], "high": numbers[1], "log": True}
        if function == "uniform" and len(numbers) in (2, 3):
            return dict(zip(("low", "high", "step"), numbers, strict=False))
        raise ValueError(
            "Expected loguniform(LOW, HIGH), uniform(LOW, HIGH), uniform(LOW, HIGH, STEP) or choice(A, B, ...), but "
            f"got {quoted(value)}."
        )
    if not isinstance(value, Mapping):
        raise ValueError(f"Expected {FORMS}, but got {quoted(value)}.")
    for word in value:
        if word not in _WORDS:
            close = closest_to(str(word), _WORDS)
            hint = f" (did you mean {close!r}?)" if close else ""
            raise ValueError(f"Expected only {', '.join(_WORDS)}, but got {quoted(word)}{hint}.")
    return value


def _checked(key: str, given: Mapping[str, Any]) -> Dimension:
    """Return the dimension in a mapping, checked against the type of its key."""
    kinds = members(key_types()[key]) if key in key_types() else (int, float)  # of a part of a value nothing is known
    if "choices" in given:
        return _choices(given)
    if not set(kinds) & {int, float}:
        options = [choice for kind in kinds if get_origin(kind) is Literal for choice in kind.__args__]
        options += [True, False] if bool in kinds else []
        options += [None] if NoneType in kinds and options else []
        shown = ", ".join(override("", option).partition("=")[2] for option in options) or "a, b"
        raise ValueError(f"Expected {{choices: [{shown}]}}, as it is no number, but got {quoted(dict(given))}.")
    if not {"low", "high"} <= set(given):
        raise ValueError(f"Expected {FORMS}, but got {quoted(dict(given))}.")
    low, high, step, log = given["low"], given["high"], given.get("step"), given.get("log", False)
    numbers = {"low": low, "high": high} | ({} if step is None else {"step": step})
    for name, number in numbers.items():
        expect_number(name, number)
    are_integers = all(isinstance(number, int) for number in numbers.values())
    if float not in kinds and not are_integers:
        raise ValueError(f"Expected whole numbers, as the key takes, but got {quoted(numbers)}.")
    if not isinstance(log, bool):
        raise ValueError(f"Expected log to be true or false, but got {quoted(log)}.")
    if low >= high:
        raise ValueError(f"Expected low to be below high, but got {low} and {high}.")
    if log and low <= 0:
        raise ValueError(f"Expected low to be positive for a logarithmic scale, but got {low}.")
    if step is not None:
        if log:
            raise ValueError("Expected step or log, but got both.")
        expect_number("step", step, above=0)
        steps = (high - low) / step
        if steps < 1 or abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"Expected step to divide the range from {low} to {high}, but got {step}; high may be "
                f"{low + max(1, int(steps)) * step:g}."
            )
    is_integer = are_integers and (key not in key_types() or float not in kinds)
    as_number: Callable[[Any], float] = int if is_integer else float
    return Dimension(as_number(low), as_number(high), log, None if step is None else as_number(step), is_integer)


def _choices(given: Mapping[str, Any]) -> Dimension:
    choices = given["choices"]
    if len(given) > 1:
        others = ", ".join(str(word) for word in given if word != "choices")
        raise ValueError(f"Expected choices alone, but got {others} beside them.")
    if not isinstance(choices, list) or not 1 <= len(choices) <= _MOST_CHOICES:
        raise ValueError(f"Expected choices to be a list of 1 to {_MOST_CHOICES} values, but got {quoted(choices)}.")
    plain = [
        yaml.safe_dump(choice, default_flow_style=True, width=1 << 20).strip()
        if isinstance(choice, list | Mapping)
        else choice
        for choice in choices
    ]
    if len({repr(choice) for choice in plain}) < len(plain):
        raise ValueError(f"Expected every choice once, but got {quoted(choices)}.")
    return Dimension(choices=tuple(plain))
