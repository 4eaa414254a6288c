"""The machine and the commit of a training, for the model's card."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from lightning_ham.controllers import get_num_threads
from lightning_ham.evaluation.record import describe_machine


def machine(device: torch.device) -> str:
    """Return the processor, the cores or accelerator in use, and the system, in words."""
    described = describe_machine(device)
    threads = f"{get_num_threads()} of {described['cores']} cores" if device.type == "cpu" else described["device"]
    return f"{described['processor']}, {threads}, {described['platform']}"


def commit() -> str | None:
    """Return the commit of this checkout; None outside a checkout or without git."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
