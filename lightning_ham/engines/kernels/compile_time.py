"""How long Numba has taken in this process to compile loops, or to load those that it compiled before."""

from __future__ import annotations

import threading
import time
from typing import Any

from numba.core import event


class CompileTime(event.Listener):
    """Adds up the time in which at least one thread compiles, or waits for one that does."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """Of all that has ended."""
        self._lock = threading.Lock()
        self._compiling = 0
        self._start = 0.0

    def on_start(self, event: Any) -> None:
        """Take note of one more that compiles."""
        with self._lock:
            if self._compiling == 0:
                self._start = time.perf_counter()
            self._compiling += 1

    def on_end(self, event: Any) -> None:
        """Take note of one less."""
        with self._lock:
            self._compiling -= 1
            if self._compiling == 0:
                self.seconds += time.perf_counter() - self._start


COMPILE_TIME = CompileTime()
event.register("numba:compiler_lock", COMPILE_TIME)
