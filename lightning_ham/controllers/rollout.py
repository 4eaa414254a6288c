"""The interface of controllers, and the result that they return."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_ham.memory import AttentionMode


class Rollout(NamedTuple):
    """What a controller did in the episodes of a batch; an access is one descent to a leaf.

    Without a memory, ``accesses`` is 0, and all but ``outputs`` are empty.
    """

    outputs: Tensor
    """Logits of the output bits, ``[batch, timesteps, output_size]``."""
    states: Tensor
    """The controller's state that each access attends with, ``[batch, accesses, controller_size]``."""
    log_probs: Tensor
    """Log-probability of the branches taken in each access, ``[batch, accesses]``."""
    entropies: Tensor
    """Entropy of the branches of each access in nats, ``[batch, accesses]``."""
    leaves: Tensor
    """Index of the leaf attended in each access, ``[batch, accesses]``."""
    branch_probs: Tensor
    """Probability of going right at each level of each access's path, ``[batch, accesses, depth]``."""


class Controller(Protocol):
    """A module that runs whole episodes. Built with ``(input_size, output_size, **options)``.

    A controller from another package is named in the entry-point group ``lightning_ham.controllers``; its constructor's
    keyword arguments are the options that a recipe may set.
    """

    controller_size: int
    """Numbers in the state that the learned baseline sees."""
    accesses_per_output: int
    """Accesses to the memory before each output symbol; 0 for a controller without a memory."""

    def __call__(
        self,
        inputs: Tensor,
        occupied: Tensor,
        timesteps: int,
        attention: AttentionMode = "argmax",
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """Run a batch of episodes; see :meth:`lightning_ham.controllers.LSTMHAM.forward`."""
        ...
