"""An evaluation's results and its machine, as plain data."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import NotRequired, TypedDict

import torch

from lightning_ham import __version__
from lightning_ham.evaluation.mistakes import Mistakes
from lightning_ham.tasks.lengths import row_name


class LengthResult(TypedDict):
    """Results for one range of lengths; errors and interval are shares in [0, 1]."""

    lengths: list[int]
    """Lowest and highest length, inclusive; the lowest may be below the task's shortest instance."""
    variant: NotRequired[str]
    """The task's variant; without it, the task's own distribution."""
    capacity: int
    """Leaves of the memory: the smallest power of two that holds the longest length."""
    episodes: int
    wrong_sequences: int
    sequence_error: float
    interval: list[float]
    """Lower and upper end of the 95 % interval (Wilson's) of ``sequence_error``."""
    symbol_error: float
    wrong_bits: int
    bit_error: float
    episodes_per_second: float
    """Episodes drawn, answered and scored a second, without the time for compiling loops."""
    mistakes: Mistakes
    """Kinds and examples of the wrong sequences."""


class Machine(TypedDict):
    """The machine of an evaluation."""

    processor: str
    cores: int
    platform: str
    device: str
    """``cpu``, or the name of the accelerator that ran the model."""


class Evaluation(TypedDict):
    """A model's error rates, as plain data that survives a round trip through JSON."""

    task: str
    controller: str
    num_parameters: int
    seed: int
    threads: int
    machine: Machine
    versions: dict[str, str]
    results: list[LengthResult]
    weights_sha256: NotRequired[str]
    """SHA-256 of the file of the evaluated weights, if they are saved."""


def span(result: LengthResult) -> str:
    """Return the name of a result's row, such as ``1-32`` or ``1-32 (grid)``."""
    return row_name(result["lengths"], result.get("variant"))


def errors_by_lengths(results: Iterable[LengthResult]) -> dict[str, float]:
    """Return the shares of wrong sequences by the names of their rows."""
    return {span(result): result["sequence_error"] for result in results}


def describe_versions() -> dict[str, str]:
    """Return the versions of software that may affect results."""
    return {"python": platform.python_version(), "torch": torch.__version__, "lightning_ham": __version__}


def describe_machine(device: torch.device) -> Machine:
    """Describe this machine and the ``device`` in use."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _processor() -> str:
    """Return the processor's model, which Linux tells only in a file."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
