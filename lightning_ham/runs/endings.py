"""Early ends of a training: a signal, a full disk, weights that are not finite, or a lost process.

Closed standard output does not end it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self, TextIO, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_ham.foreign import shown
from lightning_ham.runs import commands
from lightning_ham.runs.folder import LAST

_SIGNALS = [
    getattr(signal, name)
    for name in (
        *("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU"),
        *("SIGALRM", "SIGVTALRM", "SIGPROF", "SIGPOLL", "SIGPWR", "SIGSTKFLT"),
    )
    if hasattr(signal, name)
]
"""Signals that silently end a process without a handler."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GLOO_LOST = ("gloo/transport/", "Application timeout caused pair closure")
_LOG = logging.getLogger("lightning_ham")


class EndOnSignal(Callback):
    """Makes signals that would silently end the process raise KeyboardInterrupt, as Ctrl-C does.

    This holds within its context. As a callback of a training, it waits for the end of the batch, except for Ctrl-C
    and a second signal. Signals that are ignored or have another handler stay unchanged.
    """

    received: signal.Signals | None = None
    """The first signal received."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._can_wait = False

    @property
    def status(self) -> int:
        """The exit status for the signal, in the convention of shells."""
        return 128 + (self.received or signal.SIGINT)

    def __enter__(self) -> Self:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():  # other threads may not
            for number in _SIGNALS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the former handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take SIGTERM back from Lightning: its handler waits for other processes, which wait for this one."""
        self._can_wait = True
        if signal.SIGTERM in self._before:
            signal.signal(signal.SIGTERM, self._end)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """End the training if a signal came, even if Python dropped the exception, as in a compiler's callback."""
        self._end_now()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End the training if a signal came."""
        self._end_now()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the training if a signal came, and stop waiting: no batch follows."""
        self._can_wait = False
        self._end_now()

    def _end_now(self) -> None:
        if self.received:
            self._can_wait = False
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """Ignore all these signals from now on."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def _end(self, number: int, frame: FrameType | None) -> None:
        waits = self._can_wait and self.received is None and number != signal.SIGINT
        self.received = self.received or signal.Signals(number)
        if not waits:
            raise KeyboardInterrupt


class Ending(NamedTuple):
    """An expected early end."""

    line: str
    """The reason, and how to resume."""
    status: int
    """The exit status."""
    told_by_all: bool = False
    """Whether every process should tell it, as the first one may be gone."""


def explain(error: BaseException, signals: EndOnSignal, run_dir: Path | None, rank: int = 0) -> Ending | None:
    """Return the ending of a run that ``error`` has ended; None for an unexpected error.

    Args:
        error: The error.
        signals: Tells the signal, if any. Further signals are ignored, so that they cannot interrupt the message.
        run_dir: The run folder; None if there was none yet.
        rank: The number of this process among those of the training.
    """
    signals.ignore()
    resume = f" Resume with: {commands.resume(run_dir)}" if run_dir and (run_dir / LAST).exists() else ""
    if signals.received or isinstance(error, KeyboardInterrupt | SystemExit):  # Lightning raises the latter
        by = signals.received or signal.SIGINT
        what = "Interrupted." if by == signal.SIGINT else f"Ended by {by.name}."
        return Ending(what + (resume or " The training had not begun."), signals.status)
    if isinstance(error, FloatingPointError) and run_dir:
        return Ending(
            f"error: {error}: the training ends, {run_dir / LAST} has the last finite weights, and a smaller "
            "--model.schedule.learning_rate may keep them so.",
            1,
        )
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return Ending(f"error: There is no room left ({error}).{resume or ' Nothing was trained yet.'}", 1)
    if is_lost_process(error):
        reason = re.sub(r"^\[\S+\] ", "", str(error)).partition(". ")[0]  # without Gloo's file and advice
        return Ending(
            f"error: Process {rank} ends, as it lost contact with the other processes of this training, "
            f"one of which may have ended: {shown(reason)}.{resume}",
            1,
            told_by_all=True,
        )
    return None


def is_lost_process(error: BaseException) -> bool:
    """Return whether ``error`` comes from talking to another process of a training, which is gone or silent."""
    # Gloo raises plain RuntimeErrors, most of which begin with the file of its source.
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _GLOO_LOST)
    )


class _Output:
    """Standard output that drops text once it cannot be written any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        with self._goes_on():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        with self._goes_on():
            self._stream.flush()

    @contextlib.contextmanager
    def _goes_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            _LOG.warning("Standard output cannot be written to any more (%s); the training goes on.", error.strerror)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def output_goes_on() -> contextlib.AbstractContextManager[object]:
    """Return a context that ignores errors of writing to standard output.

    So a training goes on if its terminal, or ``head``, closes.
    """
    if sys.stdout is None:  # closed from the start
        return contextlib.nullcontext()
    return contextlib.redirect_stdout(cast(TextIO, _Output(sys.stdout)))
