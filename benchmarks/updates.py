"""One update of a network, in a process of its own: how long it takes, and how much memory.

``python -m benchmarks.updates SETTINGS`` is that process; :class:`Worker` starts it and talks to it in lines of JSON.
A round begins when it is asked for, so that many processes can take turns, none of them running while another does.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from benchmarks.report import ROOT, progress


class Settings(NamedTuple):
    """What is trained; every episode is of the full length."""

    name: str
    """Of the network; see :func:`benchmarks.peers.make_model`."""
    length: int
    batch: int
    threads: int
    memory_mb: float | None
    """What an update may take; the batch is made smaller for a network that needs more."""
    limit_s: float
    """What an update may take."""
    round_s: float
    """What the updates of a round take together, at least; it has at least one."""
    task: str = "reverse"


class Worker:
    """A process that trains one network, a round at a time.

    Args:
        settings: What it trains.
        environment: Variables that it has beside this process's.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str] | None = None) -> None:
        self.settings = settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.updates", json.dumps(settings._asdict())],
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # To find the batch it does several updates, each under the limit; the first one may compile.
        self.started = self._answer(120 + 8 * settings.limit_s)
        """The batch that it trains and seconds of its first update, or ``error``."""

    @property
    def failed(self) -> bool:
        """Whether it cannot be asked for a round."""
        return "error" in self.started

    def round(self) -> dict[str, Any]:
        """Have it train for a round; seconds of an update, and the most memory that one took so far."""
        return self._send("round", 60 + 4 * self.settings.limit_s + self.settings.round_s)

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def _send(self, line: str, limit_s: float) -> dict[str, Any]:
        try:
            _pipe(self.process.stdin).write(f"{line}\n")
            _pipe(self.process.stdin).flush()
        except BrokenPipeError:
            return {"error": f"it ended with status {self.process.wait()}"}
        return self._answer(limit_s)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        stdout = _pipe(self.process.stdout)
        if not select.select([stdout], [], [], limit_s)[0]:
            self.close()
            return {"error": f"over the limit: nothing after {limit_s:.0f} s"}
        line = stdout.readline()
        return json.loads(line) if line else {"error": f"it ended with status {self.process.wait()}"}


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise ValueError("Expected a process with pipes.")
    return stream


class Trainee:
    """A network with its optimizer, and batches to train it on."""

    def __init__(self, settings: Settings) -> None:
        import torch

        from benchmarks.peers import make_model
        from lightning_ham.controllers import set_num_threads

        torch.manual_seed(0)
        self.settings = settings
        self.model = make_model(settings.name, settings.task, settings.length)
        set_num_threads(settings.threads, compiled=self.model.is_compiled)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=3e-3)
        self.batch = 1

    def draw(self, batch: int) -> None:
        """Draw the episodes of the updates to come."""
        self.batch = batch
        length = self.settings.length
        self.episodes = self.model.task.sample(batch, (length, length))

    def update(self) -> float:
        """Forward, backward, clipping and Adam; returns the seconds."""
        import torch
        import torch.nn.functional as F

        from benchmarks.peers import training_context

        start = time.perf_counter()
        with training_context(self.settings.name):
            rollout = self.model(self.episodes, "straight_through")
            # All episodes are of one length, so that the means need no masks.
            loss = F.binary_cross_entropy_with_logits(
                rollout.outputs, self.episodes.targets, weight=self.episodes.scored.to(rollout.outputs.dtype)
            )
            if rollout.entropies.numel():
                loss = loss - 0.003 * rollout.entropies.mean()
            self.optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return time.perf_counter() - start

    def find_batch(self, baseline_mb: float) -> None:
        """Go up to the batch wanted, or to the largest one whose update should stay within memory and time."""
        wanted = self.settings.batch
        limit_mb, limit_s = self.settings.memory_mb, self.settings.limit_s
        batch = fitted = 1
        while True:
            self.draw(batch)
            try:
                seconds, growth_mb = self.update(), peak_mb() - baseline_mb
            except RuntimeError as error:  # of an allocation that the limit on memory refused
                if "memory" not in str(error):
                    raise
                give_memory_back()
                self.draw(fitted)
                return
            fitted = batch
            larger = [min(batch * factor, wanted) for factor in (4, 2)]
            fitting = [
                size
                for size in larger
                if (limit_mb is None or growth_mb * size / batch < limit_mb) and seconds * size / batch < limit_s
            ]
            if batch == wanted or not fitting:
                return
            batch = fitting[0]


def serve(settings: Settings, reply: IO[str]) -> None:
    """Find the batch, then train for a round for every line on standard input."""

    def send(answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=reply, flush=True)

    from benchmarks.peers import Unavailable

    try:
        trainee = Trainee(settings)
        limit_memory(settings.memory_mb)
        trainee.draw(1)
        first_s = trainee.update()
        second_s = trainee.update()
    except Unavailable as error:
        send({"error": str(error)})
        return
    except (RuntimeError, ImportError, NotImplementedError, ValueError) as error:
        send({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
        return
    give_memory_back()
    reset_peak()  # not the imports, nor what compiling took
    baseline_mb = resident_mb()
    trainee.find_batch(baseline_mb)
    give_memory_back()
    parameters = trainee.model.num_parameters
    send({"batch": trainee.batch, "parameters": parameters, "first_update_s": first_s, "second_update_s": second_s})
    for _ in sys.stdin:
        seconds = []
        while not seconds or sum(seconds) < settings.round_s:
            seconds.append(trainee.update())
        answer = {"update_s": sum(seconds) / len(seconds), "peak_mb": max(0.0, peak_mb() - baseline_mb)}
        if resident_mb() > baseline_mb + 1024:  # or the processes that take turns would not fit beside each other
            give_memory_back()
        send(answer)


def _status_mb(field: str) -> float | None:
    """A figure of Linux on this process's memory."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(fields[field].split()[0]) / 1024


def resident_mb() -> float:
    """Memory that this process has; where the system does not tell, the most it ever had."""
    return _status_mb("VmRSS") or peak_mb()


def peak_mb() -> float:
    """The most memory that this process ever had, or had since :func:`reset_peak`."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return _status_mb("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def limit_memory(memory_mb: float | None) -> None:
    """Have an allocation that goes far beyond ``memory_mb`` fail, before the system has to end a process."""
    taken_mb = _status_mb("VmSize")
    if memory_mb is not None and taken_mb is not None:
        slack_mb = 2048  # stacks of threads, and room that is reserved but never used
        limit = int((taken_mb + memory_mb + slack_mb) * (1 << 20))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def reset_peak() -> None:
    """Forget the peak so far, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        progress("The peak of memory cannot be reset here: that of the start counts.")


def give_memory_back() -> None:
    """Have the C library return what it has kept of freed memory, where it can."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)


if __name__ == "__main__":
    # Answers go out where standard output was; what a library prints must not stand among them.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(Settings(**json.loads(sys.argv[1])), answers)
