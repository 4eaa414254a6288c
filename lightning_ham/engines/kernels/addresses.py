"""Arrays from addresses: a compiled function takes a number faster than an array."""

from __future__ import annotations

import ctypes
from typing import Any

import numba as nb
import numpy as np
from numba import carray  # type: ignore[attr-defined]
from numba.extending import intrinsic, overload


def array_at(address: int, shape: tuple[int, ...], like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the array of ``shape`` that begins at ``address``, C-contiguous and of the type of ``like``.

    Nothing is checked: the memory must stay allocated while the array is used.
    """
    count = int(np.prod(shape))
    if not count:
        return np.empty(shape, like.dtype)
    memory: Any = (ctypes.c_char * (count * like.itemsize)).from_address(int(address))
    return np.frombuffer(memory, like.dtype).reshape(shape)


@intrinsic
def _pointer_to(typing_context, address, like):
    """Return ``address`` as a pointer to numbers of the type of ``like``."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return nb.types.CPointer(like.dtype)(address, like), generate


@overload(array_at)
def _array_at(address, shape, like):
    return lambda address, shape, like: carray(_pointer_to(address, like), shape)  # type: ignore[call-arg]
