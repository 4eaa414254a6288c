"""LSTM+HAM: the paper's controller for sequences (section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_ham.controllers.rollout import Rollout
from lightning_ham.memory import AttentionMode, HierarchicalAttentiveMemory, JoinKind


class LSTMHAM(nn.Module):
    """An LSTM whose only input is what it reads from a memory that was filled with the whole input.

    At every timestep: attend with the LSTM's state, read, step the LSTM, write, re-join; then one output symbol, from
    the LSTM's state and the read value together (the skip from the read value is ours).

    Args:
        input_size: Numbers per input cell (b in the paper).
        output_size: Bits per output symbol.
        controller_size: Cells of the LSTM (l in the paper).
        leaf_size: Numbers per node of the tree (d in the paper).
        hidden_size: Units in the hidden layers of the memory's transformations; ``leaf_size`` if not given.
        join: ``gated`` or ``mlp``.
        temperature: Of the relaxed branches of ``straight_through``.
        real_inputs: How many of the first numbers of a cell are reals in [0, 1] rather than bits.
        accesses_per_output: Accesses to the memory before each output symbol; the paper has 1.
        read_root: Whether the LSTM also sees the root of the tree; it does not in the paper.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        controller_size: int = 32,
        leaf_size: int = 32,
        hidden_size: int | None = None,
        join: JoinKind = "gated",
        temperature: float = 1.0,
        real_inputs: int = 0,
        accesses_per_output: int = 1,
        read_root: bool = False,
    ) -> None:
        super().__init__()
        for name, number in {
            "output_size": output_size,
            "controller_size": controller_size,
            "accesses_per_output": accesses_per_output,
        }.items():
            if number < 1:
                raise ValueError(f"Expected argument `{name}` to be at least 1, but got {number}.")
        self.controller_size = controller_size
        self.accesses_per_output = accesses_per_output
        self.read_root = read_root
        self.memory = HierarchicalAttentiveMemory(
            input_size, controller_size, leaf_size, hidden_size, join, temperature, real_inputs
        )
        self.lstm = nn.LSTMCell(leaf_size * (2 if read_root else 1), controller_size)
        self.head = nn.Linear(controller_size + leaf_size, output_size)

    def forward(
        self,
        inputs: Tensor,
        occupied: Tensor,
        timesteps: int,
        attention: AttentionMode = "argmax",
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """Run a batch of episodes.

        Args:
            inputs: Input cells, ``[batch, num_leaves, input_size]``; ``num_leaves`` is a power of two.
            occupied: Which cells hold input, ``[batch, num_leaves]``.
            timesteps: Output symbols to produce.
            attention: How leaves are chosen; see :mod:`lightning_ham.memory.attention`.
            generator: Source of the samples; torch's global one if not given.
        """
        tree = self.memory.init(inputs, occupied)
        in_place = not torch.is_grad_enabled()
        hidden = cell = tree.nodes.new_zeros(len(inputs), self.controller_size)
        states, logits, leaves, log_probs, entropies, outputs = [], [], [], [], [], []
        for _ in range(timesteps):
            for _ in range(self.accesses_per_output):
                access = self.memory.attend(tree, hidden, attention, generator)
                states.append(hidden)
                logits.append(access.logits)
                leaves.append(access.leaf)
                log_probs.append(access.log_prob)
                entropies.append(access.entropy)
                seen = torch.cat((access.read, tree.root), dim=1) if self.read_root else access.read
                hidden, cell = self.lstm(seen, (hidden, cell))
                tree = self.memory.write(tree, access, hidden, in_place=in_place)
            outputs.append(torch.cat((hidden, access.read), dim=1))
        return Rollout(
            outputs=self.head(torch.stack(outputs, dim=1)),
            states=torch.stack(states, dim=1),
            log_probs=torch.stack(log_probs, dim=1),
            entropies=torch.stack(entropies, dim=1),
            leaves=torch.stack(leaves, dim=1),
            branch_probs=torch.sigmoid(torch.stack(logits, dim=1)),
        )
