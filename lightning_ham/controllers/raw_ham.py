"""The raw HAM: a memory as a data structure, with no LSTM (section 4.3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_ham.arguments import expect_integer
from lightning_ham.controllers.rollout import Rollout
from lightning_ham.engines import unroll
from lightning_ham.memory import AttentionMode, HierarchicalAttentiveMemory, JoinKind


class RawHAM(nn.Module):
    """A memory that is blank at first, and carries out one operation a timestep.

    EMBED turns an operation into the query of SEARCH and WRITE. Outputs depend on the value read alone, except the
    last ``2 * state_bits``: for each bit of a leaf's state, its value in the leaf read and in the leaf after the write
    (hints, in the tasks of data structures). The tree has one leaf per input cell, so that every operation can write to
    a leaf of its own.

    Args:
        input_size: Numbers per operation, which fills one cell (b in the paper).
        output_size: Bits per output symbol.
        leaf_size: Numbers per node of the tree, and per embedded operation (d and l in the paper).
        hidden_size: Units in the hidden layers of the memory's transformations; ``leaf_size`` if not given.
        join: ``gated``, ``choice``, ``mlp``, or another package's; see :data:`lightning_ham.memory.JoinKind`.
        state_bits: Bits that describe the state of a leaf; a task may have a default of its own.
        grid: Round nodes to multiples of this power of two; None: do not round.
    """

    accesses_per_output = 1
    gone_options: ClassVar[Mapping[str, Any]] = {"temperature": 1.0}
    """As for :class:`lightning_ham.controllers.LSTMHAM`."""
    added_options: ClassVar[Mapping[str, Any]] = {"grid": None}
    """As for :class:`lightning_ham.controllers.LSTMHAM`."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        leaf_size: int = 32,
        hidden_size: int | None = None,
        join: JoinKind = "gated",
        state_bits: int = 1,
        grid: float | None = None,
    ) -> None:
        super().__init__()
        expect_integer("state_bits", state_bits, at_least=1)
        expect_integer("output_size", output_size, at_least=2 * state_bits)
        self.state_bits = state_bits
        self.memory = HierarchicalAttentiveMemory(input_size, leaf_size, leaf_size, hidden_size, join, grid=grid)
        hidden = hidden_size or leaf_size
        self.head = nn.Sequential(nn.Linear(leaf_size, hidden), nn.ReLU(), nn.Linear(hidden, output_size - state_bits))

    @property
    def controller_size(self) -> int:
        """Numbers per embedded operation, the only state besides the tree."""
        return self.memory.leaf_size

    def forward(
        self,
        inputs: Tensor,
        occupied: Tensor,
        timesteps: int,
        attention: AttentionMode = "argmax",
        generator: torch.Generator | None = None,
        guide: Tensor | None = None,
    ) -> Rollout:
        """Run a batch of episodes.

        Args:
            inputs: The operations in order, ``[batch, num_leaves, input_size]``; ``num_leaves`` is a power of 2.
            occupied: Which cells hold an operation, ``[batch, num_leaves]``.
            timesteps: Operations to carry out, with one output symbol each; at most ``num_leaves``.
            attention: How leaves are chosen; see :mod:`lightning_ham.memory.attention`.
            generator: Source of the samples; torch's global one if not given.
            guide: Index of the leaf to attend to in each timestep, ``[batch, timesteps]``, instead of the choice
                of SEARCH and ``attention``.
        """
        if timesteps > inputs.shape[1]:
            raise ValueError(
                f"Expected at most as many timesteps as cells ({inputs.shape[1]}), but got {timesteps}: raw_ham "
                "carries out one operation a timestep. Tasks that are no data structures need the controller lstm_ham."
            )
        queries = self.memory.embed_cells(inputs[:, :timesteps], occupied[:, :timesteps], generator)
        blank = self.memory.init_blank(inputs.shape[0], inputs.shape[1])
        episode = unroll(self.memory, queries, blank, timesteps, attention, generator, guide)
        written = self.memory.write_leaf(episode.reads.flatten(0, 1), queries.flatten(0, 1))
        return Rollout(
            outputs=self.outputs(episode.reads, written.view_as(episode.reads)),
            states=queries,
            log_probs=episode.log_probs,
            entropies=episode.entropies,
            leaves=episode.leaves,
            branch_probs=torch.sigmoid(episode.logits),
        )

    def outputs(self, read: Tensor, written: Tensor) -> Tensor:
        """Return the logits of the output bits, ``[..., output_size]``.

        Args:
            read: The value read, ``[..., leaf_size]``.
            written: The leaf after the write, ``[..., leaf_size]``.
        """
        found, left = self.head(read), self.head(written)
        states = torch.stack((found[..., -self.state_bits :], left[..., -self.state_bits :]), dim=-1)
        return torch.cat((found[..., : -self.state_bits], states.flatten(-2)), dim=-1)
