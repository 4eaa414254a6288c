"""The time that Numba has spent in this process, compiling loops or loading compiled ones."""

from __future__ import annotations

import threading
import time
from typing import Any

from numba.core import event


class CompileTime(event.Listener):
    """Adds up the time during which at least one thread compiles, or waits for another that does."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """Total of the finished compilations."""
        self._lock = threading.Lock()
        self._compiling = 0
        self._start = 0.0

    def on_start(self, event: Any) -> None:
        """Count one more thread."""
        with self._lock:
            if self._compiling == 0:
                self._start = time.perf_counter()
            self._compiling += 1

    def on_end(self, event: Any) -> None:
        """Count one thread less."""
        with self._lock:
            self._compiling -= 1
            if self._compiling == 0:
                self.seconds += time.perf_counter() - self._start


COMPILE_TIME = CompileTime()
event.register("numba:compiler_lock", COMPILE_TIME)
