"""Tiles of matrix products: as many sums as the vector registers hold.

In the loops that the compiler vectorises by itself, every partial sum goes through memory; so these are written in the
compiler's own language.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

Array = np.ndarray[Any, Any]


def _registers() -> tuple[int, int]:
    """Return the bytes of a vector register, and the rows of two registers each that fit beside their factors."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if "+avx512f" in features:
        return 64, 8
    return 32 if "+avx" in features else 16, 4


VECTOR, ROWS = _registers()
"""Bytes of a vector register of this processor, and rows of a tile that is two registers wide."""


def set_tile(x: Array, w: Array, start: Array, y: Array, m: int, n: int, rows: int, width: int) -> None:
    """Set ``rows`` rows of ``y`` from row ``m``, and ``width`` bytes of each from column ``n``, to ``start + x @ w``.

    Every number is a sum in the order of the inner index, beginning with ``start``, whatever the size of the tile.

    Args:
        x: ``[m, k]``, in any layout.
        w: ``[k, n]``, rows contiguous.
        start: ``[m, n]``, rows contiguous, may be ``y``; or ``[n]``, the same for all rows.
        y: ``[m, n]``, rows contiguous.
        m: The first row.
        n: The first column.
        rows: A constant.
        width: A constant; 0 for one column.
    """
    below, right = slice(m, m + rows), slice(n, n + max(1, width // y.itemsize))
    y[below, right] = (start[right] if start.ndim == 1 else start[below, right]) + x[below] @ w[:, right]


@overload(set_tile, prefer_literal=True)
def _set_tile(x, w, start, y, m, n, rows, width):
    return lambda x, w, start, y, m, n, rows, width: _in_registers(x, w, start, y, m, n, rows, width)


_intrinsic: Any = intrinsic(prefer_literal=True)


@_intrinsic
def _in_registers(typing_context, x, w, start, y, m, n, rows, width):
    """Do what :func:`set_tile` does, all sums of the tile at once."""
    size = y.dtype.bitwidth // 8
    columns = max(1, width.literal_value // size)
    lanes = min(columns, VECTOR // size)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.get_value_type(y.dtype)
        vector = ir.VectorType(number, lanes) if lanes > 1 else number
        first_row, first_column = arguments[4:6]
        x_at, w_at, start_at, y_at = (
            _Addresses(context, builder, kind, value)
            for kind, value in zip(signature.args[:4], arguments[:4], strict=True)
        )
        tile = [
            (builder.add(first_row, first_row.type(r)), builder.add(first_column, first_column.type(c)))
            for r in range(rows.literal_value)
            for c in range(0, columns, lanes)
        ]
        sums = [cgutils.alloca_once_value(builder, start_at.load(vector, row, column)) for row, column in tile]
        with cgutils.for_range(builder, x_at.shape[1]) as loop:
            for total, (row, column) in zip(sums, tile, strict=True):
                left = _repeated(builder, x_at.load(number, row, loop.index), vector)
                product = builder.fmul(left, w_at.load(vector, loop.index, column), flags=["contract"])
                builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        for total, (row, column) in zip(sums, tile, strict=True):
            y_at.store(builder.load(total), row, column)
        return context.get_dummy_value()

    return types.void(x, w, start, y, m, n, rows, width), generate


class _Addresses:
    """Loads from and stores to an array ``[m, n]``, or ``[n]`` for any row, of one number or several in a row."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self._builder, self._size = builder, kind.dtype.bitwidth // 8
        self._data = builder.bitcast(array.data, ir.IntType(8).as_pointer())
        self.shape = cgutils.unpack_tuple(builder, array.shape)
        self._strides = cgutils.unpack_tuple(builder, array.strides)
        if kind.layout in "CF":  # a constant makes shorter code
            self._strides[-1 if kind.layout == "C" else 0] = context.get_constant(types.intp, self._size)

    def load(self, kind: Any, row: Any, column: Any) -> Any:
        return self._builder.load(self._at(kind, row, column), align=self._size)

    def store(self, value: Any, row: Any, column: Any) -> None:
        self._builder.store(value, self._at(value.type, row, column), align=self._size)

    def _at(self, kind: Any, row: Any, column: Any) -> Any:
        pointer = self._data
        for stride, index in zip(self._strides, (row, column)[-len(self._strides) :], strict=True):
            pointer = self._builder.gep(pointer, [self._builder.mul(stride, index)])
        return self._builder.bitcast(pointer, kind.as_pointer())


def _repeated(builder: Any, value: Any, vector: Any) -> Any:
    """Return a vector of equal numbers, or the number itself if ``vector`` is its type."""
    if value.type == vector:
        return value
    index, undefined = ir.IntType(32), ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, index(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(index, vector.count), [0] * vector.count))
