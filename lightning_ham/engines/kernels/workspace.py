"""Memory that is used again: fresh pages cost as much as the arithmetic that first writes to them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np


class Workspace:
    """Room for ``numbers`` numbers of type ``dtype``; when it is no longer referenced, the next one gets its memory.

    Nothing that was taken from it may be used longer than the workspace itself.
    """

    _free: ClassVar[list[np.ndarray[Any, Any]]] = []

    def __init__(self, numbers: int, dtype: np.dtype[Any]) -> None:
        needed = numbers * dtype.itemsize
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, np.uint8)
        self._memory = memory if memory.nbytes >= needed else np.empty(needed, np.uint8)
        self._numbers = self._memory[:needed].view(dtype)
        self._taken = 0

    def take(self, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Return an array of ``shape`` whose numbers are not set."""
        start = self._taken
        self._taken += int(np.prod(shape))
        if self._taken > len(self._numbers):
            raise ValueError(f"Expected at most {len(self._numbers)} numbers to be taken, but got {self._taken}.")
        return self._numbers[start : self._taken].reshape(shape)

    def __del__(self) -> None:
        if not self._free:  # one is enough: training needs one at a time, or two in turn
            self._free.append(self._memory)
