"""Checks of a memory's arguments, with errors that say what does not fit."""

from __future__ import annotations

import math
from typing import SupportsIndex, cast

import torch
from torch import Tensor

from lightning_ham.arguments import expect_integer, expect_number
from lightning_ham.memory.tree import Tree, check_num_leaves

FINEST_GRID = 2.0**-20
"""Least grid of a memory; float32 itself is little finer."""


class ArgumentError(ValueError, RuntimeError):
    """A tensor does not fit the memory; also a RuntimeError, since PyTorch itself would raise one later."""


def expect_tensor(name: str, value: object, shape: tuple[int | str, ...], dtype: torch.dtype) -> None:
    """Raise an :class:`ArgumentError` unless an argument is a tensor of this shape and type.

    Args:
        name: Name of the argument.
        value: The argument.
        shape: Size of each dimension; a name if any size will do.
        dtype: The type; under autocast, any floating type replaces a floating one.
    """
    if isinstance(value, Tensor):
        sizes = value.shape
        fits = len(sizes) == len(shape) and all(
            size == wanted or isinstance(wanted, str) for size, wanted in zip(sizes, shape, strict=True)
        )
        if fits and (value.dtype == dtype or _is_cast(value, dtype)):
            return
        got = f"shape {list(sizes)} and dtype {value.dtype}"
    else:
        got = f"a {type(value).__name__}, not a tensor"
    wanted = ", ".join(map(str, shape))
    raise ArgumentError(f"Expected argument `{name}` of shape [{wanted}] and dtype {dtype}, but got {got}.")


def expect_kind(name: str, value: object, kind: type, source: str) -> None:
    """Raise a TypeError unless an argument is a ``kind``, which the memory's method ``source`` returns."""
    if not isinstance(value, kind):
        raise TypeError(f"Expected argument `{name}` to be what {source} returns, but got a {type(value).__name__}.")


def check_sizes(input_size: int, query_size: int, leaf_size: int, hidden_size: int | None, real_inputs: int) -> None:
    """Raise a ValueError unless a memory can have these sizes."""
    sizes = {"input_size": input_size, "query_size": query_size, "leaf_size": leaf_size, "hidden_size": hidden_size}
    for name, size in sizes.items():
        if size is not None:
            expect_integer(name, size, at_least=1)
    expect_integer("real_inputs", real_inputs)
    if not 0 <= real_inputs <= min(input_size, (leaf_size - 1) // 2):
        raise ValueError(
            f"Expected argument `real_inputs` to be between 0 and `input_size` ({input_size}), and below half of "
            f"`leaf_size` ({leaf_size}), but got {real_inputs}."
        )


def check_grid(grid: object) -> None:
    """Raise a ValueError unless nodes may be rounded to multiples of ``grid``: of None they are not."""
    if grid is None:
        return
    expect_number("grid", grid, at_least=FINEST_GRID, at_most=1)
    mantissa, _ = math.frexp(cast(float, grid))
    if mantissa != 0.5:
        raise ValueError(f"Expected argument `grid` to be 1 or a half of it, a quarter, and so on, but got {grid}.")


def check_blank(batch: object, num_leaves: object) -> None:
    """Raise an :class:`ArgumentError` unless both are whole numbers and ``batch`` is at least 0."""
    for name, number in {"batch": batch, "num_leaves": num_leaves}.items():
        if isinstance(number, bool) or not isinstance(number, SupportsIndex):
            raise ArgumentError(f"Expected argument `{name}` to be a whole number, but got {number!r}.")
    if not isinstance(batch, torch.SymInt) and int(batch) < 0:  # type: ignore[call-overload]
        raise ArgumentError(f"Expected argument `batch` to be at least 0, but got {batch}.")


def check_cells(inputs: Tensor, occupied: Tensor | None, cells: str, size: int, dtype: torch.dtype) -> Tensor:
    """Check cells of ``size`` numbers and the mask ``occupied``; return the mask, by default all True."""
    expect_tensor("inputs", inputs, ("batch", cells, size), dtype)
    if occupied is None:
        return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    expect_tensor("occupied", occupied, tuple(inputs.shape[:2]), torch.bool)
    return occupied


def check_access(tree: Tree, leaf_size: int, name: str, vectors: Tensor, size: int, dtype: torch.dtype) -> None:
    """Check a tree of ``leaf_size``, and ``vectors`` of ``size`` for no more episodes than the tree has."""
    expect_kind("tree", tree, Tree, "init")
    nodes = tree.nodes
    expect_tensor("tree.nodes", nodes, ("batch", "2 * num_leaves", leaf_size), dtype)
    check_num_leaves(tree.num_leaves)
    expect_tensor(name, vectors, ("batch", size), dtype)
    if vectors.shape[0] > nodes.shape[0]:
        expect_tensor(name, vectors, (nodes.shape[0], size), dtype)


def check_guide(guide: Tensor, batch: int, num_leaves: int) -> None:
    """Check a guide: the index of the leaf that each of ``batch`` accesses must go to."""
    expect_tensor("guide", guide, (batch,), torch.int64)
    if torch.compiler.is_compiling():  # there are no values yet
        return
    if guide.device.type == "cpu" and batch:  # reading values from another device would be slow
        low, high = map(int, guide.aminmax())
        if low < 0 or high >= num_leaves:
            raise ArgumentError(f"Expected argument `guide` from 0 to {num_leaves - 1}, but got {low} to {high}.")


def _is_cast(value: Tensor, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and value.is_floating_point() and torch.is_autocast_enabled(value.device.type)
