"""Options of a recipe that neither the model, nor the data, nor the Trainer has."""

from __future__ import annotations

import dataclasses
from typing import Literal

from lightning_ham.tasks import Lengths


@dataclasses.dataclass
class WandbOptions:
    """Where the run is logged in Weights & Biases."""

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
    """Ranges of lengths, each in the smallest tree that holds its longest."""
    episodes: int | list[int] = 2500
    """Fresh episodes for each range; a list has a number for each of them."""
    seed: int = 0
    """Seed of these episodes."""


@dataclasses.dataclass
class HubOptions:
    """Where on the Hugging Face Hub the model is published when it is trained; nowhere if there is no name."""

    repo_id: str | None = None
    """``organisation/name``; made if it is not there. Pushes with the token of `hf auth login` or HF_TOKEN."""
    private: bool = False
    """Show it to its owners only, if it is made now."""
