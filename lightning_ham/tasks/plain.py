"""Conversion of instances in any form to Python's own lists, tuples and numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from lightning_ham.tasks.checks import InstanceError

MOST_ELEMENTS = 1 << 21
"""Most elements taken from an iterable, which may be endless."""

_LEVELS = 16  # more than any task has; deeper levels stay unchanged, and the task refuses them
_EXACT_FLOATS = 1 << 53  # beyond it, floats skip integers

_READERS: dict[str, Callable[[Any], Any]] = {
    "tolist": lambda data: data.tolist(),  # arrays, tensors, their scalars, columns of pandas
    "itertuples": lambda data: data.itertuples(index=False, name=None),  # tables of pandas
    "rows": lambda data: data.rows(),  # tables of polars
    "to_list": lambda data: data.to_list(),  # columns of polars
    "to_pylist": lambda data: data.to_pylist(),  # columns of Arrow
    "__array__": lambda data: data.__array__().tolist(),  # anything numpy can read
}
"""Readers of arrays and tables, by a method that identifies each kind."""


def plain(data: object) -> Any:
    """Return data as Python's own lists, tuples, strings and numbers, where the conversion is unambiguous.

    Arrays, tensors, tables, ranges, iterators and views become lists; numbers of other types become Python's own.
    Whole numbers in an array of floats become integers, since such an array cannot hold integers. Text, mappings, sets
    and unknown objects stay unchanged.

    >>> import torch
    >>> plain((range(3), torch.tensor([[0.5, 7.0]]), {"a": 1}.items()))
    ([0, 1, 2], [[0.5, 7]], [('a', 1)])

    Raises:
        InstanceError: If an array cannot be read, or an iterator seems to have no end.
    """
    return _plain(data, _LEVELS, whole=False)


def _plain(data: Any, levels: int, *, whole: bool) -> Any:
    kind = type(data)
    if kind is float and whole and data.is_integer() and abs(data) <= _EXACT_FLOATS:
        return int(data)
    if (
        kind in (int, float, bool, str)
        or levels == 0
        or isinstance(data, bytes | bytearray | Mapping | set | frozenset)
    ):
        return data
    if isinstance(data, tuple):
        return tuple(_plain(element, levels - 1, whole=whole) for element in data)
    if isinstance(data, str):
        return str(data)
    for method, read in _READERS.items():
        if callable(getattr(data, method, None)):
            try:
                return _plain(read(data), levels - 1, whole=True)
            except (TypeError, ValueError, RuntimeError) as error:
                reason = str(error).partition("\n")[0][:200]
                raise InstanceError(
                    f"Expected numbers that can be read, but got a {kind.__name__}: {reason}"
                ) from error
    if isinstance(data, Iterable):
        elements = list(islice(data, MOST_ELEMENTS + 1))
        if len(elements) > MOST_ELEMENTS:
            raise InstanceError(f"Expected at most {MOST_ELEMENTS:,} elements, but got a {kind.__name__} with more")
        return [_plain(element, levels - 1, whole=whole) for element in elements]
    return int(operator.index(data)) if hasattr(kind, "__index__") else data
