"""What a user sees and can do while loops are compiled, at their first use on a machine."""

from __future__ import annotations

import importlib.util
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_LOG = logging.getLogger(__name__)


class FirstUse:
    """Wraps calls to compiled loops; acts only until the first succeeds.

    The first use says why it takes so long, if it does, and Ctrl-C ends it.

    Args:
        message: What it says, after 3 seconds.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self.is_over = False
        """Whether one use has succeeded."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Return the context."""
        if self.is_over:
            yield
            return
        timer = threading.Timer(3, _LOG.info, [self.message])
        timer.daemon = True
        timer.start()
        try:
            with _hearing_interrupts():
                yield
        finally:
            timer.cancel()
        self.is_over = True


@contextmanager
def _hearing_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt for Ctrl-C, even where it falls into a callback of the compiler.

    Python drops what is raised in there; then nothing happens, or the compiler fails for lack of what was not finished.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    heard = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        before(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if heard:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


def compile_seconds() -> float:
    """Return how long this process has compiled loops since this was asked for the first time; 0 without Numba.

    The first time imports Numba, which takes a second.
    """
    if importlib.util.find_spec("numba") is None:
        return 0.0
    from lightning_ham.engines.kernels.compile_time import COMPILE_TIME

    return COMPILE_TIME.seconds
