"""Small products and activations that the compiler turns into vector instructions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from numba.extending import overload

from lightning_ham.engines.kernels.cache import CompiledOnDisk
from lightning_ham.engines.kernels.tile import ROWS, VECTOR, set_tile
from lightning_ham.memory.constants import FINEST_DIFFERENCE

# Sums may be reordered and products fused, as a BLAS does; NaN and infinity keep their meaning.
_FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
_TWO_VECTORS, _HALF_A_VECTOR = 2 * VECTOR, VECTOR // 2  # bytes


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a kernel: compile it at its first use for any float type, without the GIL, and cache it on disk."""
    kernel: Any = nb.njit(nogil=True, fastmath=_FASTMATH, error_model="numpy")(function)
    if kernel is not function:  # not so with NUMBA_DISABLE_JIT
        kernel._cache = CompiledOnDisk(function)  # noqa: SLF001 - Numba has no public way to set a cache
    return kernel


def _strip_of(rows: int) -> Callable[..., Any]:
    """Return a kernel that sets ``rows`` rows of ``y``, from row ``m``, to ``start + x @ w``."""

    @nb.njit(nogil=True, error_model="numpy")  # with each kernel that uses it: its name on disk would not tell `rows`
    def strip(x, w, start, y, m):
        lanes, columns, n = VECTOR // y.itemsize, y.shape[1], 0
        while n + 2 * lanes <= columns:
            set_tile(x, w, start, y, m, n, rows, _TWO_VECTORS)
            n += 2 * lanes
        while n + lanes // 2 <= columns:
            set_tile(x, w, start, y, m, n, rows, _HALF_A_VECTOR)
            n += lanes // 2
        while n < columns:
            set_tile(x, w, start, y, m, n, rows, 0)
            n += 1

    return strip


_strip, _row = _strip_of(ROWS), _strip_of(1)


@compiled
def affine(x, w, start, y):
    """Set ``y`` to ``start + x @ w``, summed in this order.

    Args:
        x: ``[m, k]``, in any layout.
        w: ``[k, n]``, rows contiguous.
        start: ``[m, n]``, rows contiguous, may be ``y``; or ``[n]``, the same for all rows.
        y: ``[m, n]``, rows contiguous.
    """
    rows = y.shape[0]
    in_strips = rows - rows % ROWS
    for m in range(0, in_strips, ROWS):
        _strip(x, w, start, y, m)
    for m in range(in_strips, rows):
        _row(x, w, start, y, m)


@compiled
def accumulate(x, w, y):
    """Add ``x @ w`` to ``y``; shapes and layouts as in :func:`affine`."""
    affine(x, w, y, y)


@compiled
def add_column_sums(x, total):
    """Add the sum of the rows of ``x`` ``[m, n]`` to ``total`` ``[n]``."""
    for m in range(x.shape[0]):
        for n in range(x.shape[1]):
            total[n] += x[m, n]


@nb.njit(nogil=True, error_model="numpy", fastmath={"contract"})  # else the caller's flags apply
def _less_two_products(x, power, high, low):
    """Return ``x - power * high - power * low`` in this order; ``power * (high + low)`` would lose digits."""
    return x - power * high - power * low


def exponential(x):
    """Return e to the power of ``x``, a scalar; in float32 as a polynomial, which vectorises (relative error 2e-7)."""
    return math.exp(x)


@overload(exponential, inline="always")
def _exponential(x):
    if x != nb.float32:
        return lambda x: math.exp(x)

    log2_e, ln2_high, ln2_low = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
    low, high, half, one = np.float32(-87.0), np.float32(88.0), np.float32(0.5), np.float32(1)
    # Cephes' expf: https://www.netlib.org/cephes
    p0, p1, p2, p3, p4 = (
        np.float32(c) for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1)
    )
    bias, mantissa_bits = np.int32(127), np.int32(23)

    def polynomial(x):
        x = low if x < low else x  # not min and max: a NaN must stay one
        x = high if x > high else x
        power = np.floor(x * log2_e + half)
        r = _less_two_products(x, power, ln2_high, ln2_low)
        series = ((((p0 * r + p1) * r + p2) * r + p3) * r + p4) * r + half
        scale = np.int32((np.int32(power) + bias) << mantissa_bits).view(np.float32)
        return (series * r * r + r + one) * scale

    return polynomial


@compiled
def sigmoid(x):
    """Return the logistic function of a scalar."""
    one = type(x)(1)
    return one / (one + exponential(-x))


@compiled
def on_grid(x, steps):
    """Return a scalar rounded to a multiple of ``1 / steps``, a power of two; as it is where ``steps`` is 0."""
    return np.rint(x * steps) / steps if steps > 0 else x


@compiled
def compared(left, right):
    """Return the difference of two reals on a logarithmic scale: :func:`lightning_ham.memory.transforms.compare`."""
    half, finest = type(left)(0.5), type(left)(FINEST_DIFFERENCE)
    return half * math.asinh((left - right) / finest)


@compiled
def real_row(left, right, i, reals, size):
    """Return the index, in two concatenated children of ``size`` numbers, of the parent's real ``i`` of ``reals``.

    The first half of the reals are the smaller ones of ``left`` and ``right``, the second the greater; in a tie, left.
    """
    from_left = left <= right if 2 * i < reals else left >= right
    return i if from_left else size + i


@compiled
def activate(x, scale):
    """Apply the logistic function to ``x`` where ``scale`` is 1, and tanh where it is 2, in place.

    Both have the shape ``[m, n]``. One long loop vectorises fully, unlike a loop per row. Here
    ``tanh(x) = 2 sigmoid(2 x) - 1``, with an absolute error of 2e-7 in float32.
    """
    values, scales, one = x.reshape(-1), scale.reshape(-1), x.dtype.type(1)
    for i in range(values.shape[0]):
        values[i] = scales[i] * sigmoid(scales[i] * values[i]) + (one - scales[i])


@compiled
def tanh_of(x, y):
    """Set ``y`` to the tanh of ``x``, both ``[m, n]``."""
    values, results, one = x.reshape(-1), y.reshape(-1), x.dtype.type(1)
    two = one + one
    for i in range(values.shape[0]):
        results[i] = two * sigmoid(two * values[i]) - one
