"""What an evaluation found, as plain data, and on which machine."""

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
    """What was measured on the lengths of one range; errors and interval are shares in [0, 1]."""

    lengths: list[int]
    """Shortest and longest length, inclusive; those below the task's shortest instance stand for nothing."""
    variant: NotRequired[str]
    """Of the task, whose own distribution of instances is meant where this is missing."""
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
    """Episodes drawn, answered and scored; the time that loops took to compile, at their first use, is left out."""
    mistakes: Mistakes
    """What the wrong sequences are like."""


class Machine(TypedDict):
    """Where it was measured."""

    processor: str
    cores: int
    platform: str
    device: str
    """What the model ran on: ``cpu``, or the accelerator's name."""


class Evaluation(TypedDict):
    """How often a model is wrong, as plain data that goes to JSON and back unchanged."""

    task: str
    controller: str
    num_parameters: int
    seed: int
    threads: int
    machine: Machine
    versions: dict[str, str]
    results: list[LengthResult]
    weights_sha256: NotRequired[str]
    """Of the file of the weights that were measured, where they are saved."""


def span(result: LengthResult) -> str:
    """Return the lengths of a result as they are written, such as ``1-32``."""
    return row_name(result["lengths"], result.get("variant"))


def errors_by_lengths(results: Iterable[LengthResult]) -> dict[str, float]:
    """Return the shares of wrong sequences, by lengths as they are written."""
    return {span(result): result["sequence_error"] for result in results}


def describe_versions() -> dict[str, str]:
    """Return the versions that an outcome may depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "lightning_ham": __version__}


def describe_machine(device: torch.device) -> Machine:
    """Describe this machine and the ``device`` of it that is used."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _processor() -> str:
    """Return the processor's model, which Linux tells in a file only."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
