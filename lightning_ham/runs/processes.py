"""Runs many trainings, each as a process of its own with a log."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

GRACE = 30.0
"""Seconds for a training to end after SIGTERM."""
_POLL = 0.5
"""Seconds between two looks at a training that is watched."""


class Exit(NamedTuple):
    """How a training ended."""

    outcome: Literal["done", "failed", "busy", "ended", "stopped"]
    """``busy``: another process runs it. ``ended``: its watcher ended it. ``stopped``: all trainings were stopped."""
    status: int | None = None
    """The exit status, or minus the number of the signal that killed it; None if no process was started."""


class Processes:
    """Runs trainings as processes, until :meth:`stop`. Threads may share it."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait; return early, and True, if all trainings are stopped."""
        return self._stopped.wait(seconds)

    def run(
        self,
        log: Path,
        command: Callable[[], Sequence[str] | None],
        environment: Mapping[str, str],
        goes_on: Callable[[], bool] | None = None,
    ) -> Exit:
        """Run ``python -m lightning_ham.fit``; return how it ended.

        Args:
            log: File for its output. The process holds a lock on it, also if it outlives us, so that no other process
                runs the same training.
            command: Returns the arguments, or None if the training is done. Called when the log is locked.
            environment: Variables of the process.
            goes_on: Called twice a second; once it returns False, the training is ended by SIGTERM.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            try:
                fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Exit("busy")
            with self._lock:
                if self._stopped.is_set():
                    return Exit("stopped")
                arguments = command()
                if arguments is None:  # done meanwhile, by another process
                    return Exit("done")
                process = subprocess.Popen(
                    [sys.executable, "-m", "lightning_ham.fit", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,  # Ctrl-C reaches only us, and we stop it
                )
                self._running.add(process)
            try:
                was_ended = goes_on is not None and not _watch(process, goes_on)
                status = process.wait()
            except BaseException:
                end([process])
                raise
            finally:
                with self._lock:
                    self._running.discard(process)
        if self._stopped.is_set() and status != 0:
            return Exit("stopped", status)
        if was_ended:
            return Exit("ended", status)
        return Exit("done" if status == 0 else "failed", status)

    def stop(self) -> None:
        """End all trainings, which keep their last checkpoints, and start no more."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        end(running)


def _watch(process: subprocess.Popen[bytes], goes_on: Callable[[], bool]) -> bool:
    """Wait for a process; end it and return False once ``goes_on`` returns False."""
    while True:
        try:
            process.wait(_POLL)
            return True
        except subprocess.TimeoutExpired:
            if not goes_on():
                end([process])
                return False


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes by SIGTERM, and by SIGKILL those that take too long."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def environment(threads: int, defaults: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a training: ``defaults``, ours, and the number of CPU threads."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**defaults, **os.environ, **dict.fromkeys(variables, str(threads))}


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
