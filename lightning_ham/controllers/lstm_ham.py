"""LSTM+HAM: the paper's controller for sequences (section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_ham.arguments import expect_integer, expect_one_of
from lightning_ham.controllers.rollout import Rollout
from lightning_ham.engines import unroll
from lightning_ham.memory import AttentionMode, HierarchicalAttentiveMemory, JoinKind

Readout = Literal["state_and_read", "state", "read"]
"""Input of the output layer: the LSTM's state, as in the paper, the value read, or both."""


class LSTMHAM(nn.Module):
    """An LSTM whose only input is what it reads from a memory that was filled with the whole input.

    At every timestep: attend with the LSTM's state, read, step the LSTM, write, re-join; then one output symbol.

    Args:
        input_size: Numbers per input cell (b in the paper).
        output_size: Bits per output symbol.
        controller_size: Cells of the LSTM (l in the paper).
        leaf_size: Numbers per node of the tree (d in the paper).
        hidden_size: Units in the hidden layers of the memory's transformations; ``leaf_size`` if not given.
        join: ``gated``, ``choice``, ``mlp``, or another package's; see :data:`lightning_ham.memory.JoinKind`.
        real_inputs: How many of the first numbers of a cell are reals in [0, 1] rather than bits.
        accesses_per_output: Accesses to the memory before each output symbol; the paper has 1.
        readout: Input of the output layer: ``state`` (the LSTM's, as in the paper), ``read`` (the value read) or
            ``state_and_read``.
        grid: Round nodes, except reals, to multiples of this power of two; None: do not round.
    """

    gone_options: ClassVar[Mapping[str, Any]] = {"temperature": 1.0, "read_root": False}
    """Options that only older saved models have, with the only value still valid."""
    added_options: ClassVar[Mapping[str, Any]] = {"grid": None}
    """Options that older saved models lack, with the values that hold for them."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        controller_size: int = 32,
        leaf_size: int = 32,
        hidden_size: int | None = None,
        join: JoinKind = "gated",
        real_inputs: int = 0,
        accesses_per_output: int = 1,
        readout: Readout = "state_and_read",
        grid: float | None = None,
    ) -> None:
        super().__init__()
        expect_one_of("readout", readout, get_args(Readout))
        for name, number in {
            "output_size": output_size,
            "controller_size": controller_size,
            "accesses_per_output": accesses_per_output,
        }.items():
            expect_integer(name, number, at_least=1)
        self.controller_size = controller_size
        self.accesses_per_output = accesses_per_output
        self.memory = HierarchicalAttentiveMemory(
            input_size, controller_size, leaf_size, hidden_size, join, real_inputs, grid
        )
        self.lstm = nn.LSTMCell(leaf_size, controller_size)
        self.readout = readout
        seen = {"state_and_read": controller_size + leaf_size, "state": controller_size, "read": leaf_size}
        self.head = nn.Linear(seen[readout], output_size)

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
            inputs: Input cells, ``[batch, num_leaves, input_size]``; ``num_leaves`` is a power of two.
            occupied: Which cells hold input, ``[batch, num_leaves]``.
            timesteps: Output symbols to produce.
            attention: How leaves are chosen; see :mod:`lightning_ham.memory.attention`.
            generator: Source of the samples; torch's global one if not given.
            guide: Index of the leaf to attend to in each access, ``[batch, accesses]``, instead of the choice
                of SEARCH and ``attention``.
        """
        leaves = self.memory.embed_cells(inputs, occupied, generator)
        accesses = timesteps * self.accesses_per_output
        episode = unroll(self.memory, self.lstm, leaves, accesses, attention, generator, guide)
        last = slice(self.accesses_per_output - 1, None, self.accesses_per_output)
        states = torch.cat((torch.zeros_like(episode.hidden[:, :1]), episode.hidden[:, :-1]), dim=1)
        return Rollout(
            outputs=self.outputs(episode.hidden[:, last], episode.reads[:, last]),
            states=states,
            log_probs=episode.log_probs,
            entropies=episode.entropies,
            leaves=episode.leaves,
            branch_probs=torch.sigmoid(episode.logits),
        )

    def outputs(self, state: Tensor, read: Tensor) -> Tensor:
        """Return the logits of the output bits, ``[..., output_size]``.

        Args:
            state: The LSTM's state after the read, ``[..., controller_size]``.
            read: The value read, ``[..., leaf_size]``.
        """
        seen = {"state": (state,), "read": (read,), "state_and_read": (state, read)}[self.readout]
        return self.head(torch.cat(seen, dim=-1))
