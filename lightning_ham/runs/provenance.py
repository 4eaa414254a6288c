"""Where and with what a model was trained, for its card."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from lightning_ham.controllers import get_num_threads
from lightning_ham.evaluation.record import describe_machine


def machine(device: torch.device) -> str:
    """Return the processor, the part of it that was used, and the system, in words."""
    described = describe_machine(device)
    threads = f"{get_num_threads()} of {described['cores']} cores" if device.type == "cpu" else described["device"]
    return f"{described['processor']}, {threads}, {described['platform']}"


def commit() -> str | None:
    """Return the commit of the checkout that this is, None where it is none or git is not there."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
