"""Options of a recipe for tracking, evaluation and publishing."""

from __future__ import annotations

import dataclasses
from typing import Literal

from lightning_ham.tasks import Lengths


@dataclasses.dataclass
class WandbOptions:
    """Logging to Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """``auto``: as WANDB_MODE says, else online if there is an API key, else offline. Never asks."""
    project: str = "lightning-ham"
    """Project that the run belongs to."""
    entity: str | None = None
    """Team or user that owns it; the account's default if null."""


@dataclasses.dataclass
class EvaluationOptions:
    """The evaluation after training (the paper's protocol)."""

    lengths: list[Lengths] = dataclasses.field(default_factory=lambda: [Lengths(1, 32), Lengths(33, 128)])
    """Ranges of lengths, each in the smallest tree for its greatest length."""
    episodes: int | list[int] = 2500
    """Fresh episodes for each range; a list has a number for each."""
    seed: int = 0
    """Seed of these episodes."""


@dataclasses.dataclass
class HubOptions:
    """Publishing on the Hugging Face Hub after training; only if there is a name."""

    repo_id: str | None = None
    """``organisation/name``; created if missing. Pushes with the token of `hf auth login` or HF_TOKEN."""
    private: bool = False
    """Make a new model visible to its owners only."""
