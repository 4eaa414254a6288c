"""Reuse of memory: getting fresh pages costs as much as the arithmetic that writes to them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np


class Workspace:
    """Memory for ``numbers`` numbers of type ``dtype``; once unreferenced, it passes to the next workspace.

    Do not use arrays taken from it longer than the workspace itself.
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
        """Return an uninitialised array of ``shape``."""
        start = self._taken
        self._taken += int(np.prod(shape))
        if self._taken > len(self._numbers):
            raise ValueError(f"Expected at most {len(self._numbers)} numbers to be taken, but got {self._taken}.")
        return self._numbers[start : self._taken].reshape(shape)

    def __del__(self) -> None:
        if not self._free:  # one suffices: training needs one at a time, or two in turn
            self._free.append(self._memory)
