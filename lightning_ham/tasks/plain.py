"""Instances in whatever form they come, as lists, tuples and numbers of Python's own."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from lightning_ham.tasks.checks import InstanceError

MOST_ELEMENTS = 1 << 21
"""Most elements that are taken from what may have no end."""

_LEVELS = 16  # more than any task has: what is nested deeper is left as it is, for the task to refuse
_EXACT_FLOATS = 1 << 53  # beyond, not every integer is a float

_READERS: dict[str, Callable[[Any], Any]] = {
    "tolist": lambda data: data.tolist(),  # arrays, tensors, their scalars, columns of pandas
    "itertuples": lambda data: data.itertuples(index=False, name=None),  # tables of pandas
    "rows": lambda data: data.rows(),  # tables of polars
    "to_list": lambda data: data.to_list(),  # columns of polars
    "to_pylist": lambda data: data.to_pylist(),  # columns of Arrow
    "__array__": lambda data: data.__array__().tolist(),  # what numpy can read
}
"""What reads an array or a table, by the name of a method that it has."""


def plain(data: object) -> Any:
    """Return data as Python's own lists, tuples, strings and numbers, as far as there is one way to read it so.

    Arrays, tensors, tables, ranges, iterators and views become lists, and numbers of other kinds Python's own. Whole
    numbers in an array of floats become integers, as such an array has no others. Text, mappings and sets are left as
    they are, and so is all that is unknown.

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
