"""Compiling at the first use of loops: a message to the user, and working Ctrl-C."""

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

    While loops are being compiled, it explains the wait, and Ctrl-C works.

    Args:
        message: Logged after 3 seconds.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self.is_over = False
        """Whether a call has succeeded."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Return the context of one call."""
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
    """Raise a KeyboardInterrupt for Ctrl-C, even during a callback of the compiler.

    Python drops an exception raised there; then nothing happens, or the compiler fails later on unfinished work.
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
    """Return the seconds this process has spent compiling loops since the first call; 0 without Numba.

    The first call imports Numba, which takes a second.
    """
    if importlib.util.find_spec("numba") is None:
        return 0.0
    from lightning_ham.engines.kernels.compile_time import COMPILE_TIME

    return COMPILE_TIME.seconds
