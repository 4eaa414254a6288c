"""The JOIN: how two nodes of the tree become their parent."""

import torch
from torch import nn

from lightning_ham.memory import Join
from lightning_ham.memory.transforms import join_input, join_output


class NeedleJoin(Join):
    """The sum of both children and a correction by a multi-layer perceptron, squashed by tanh.

    Args: those of :class:`lightning_ham.memory.Join`.
    """

    def __init__(self, leaf_size, hidden_size, num_reals=0, grid=None):
        super().__init__(leaf_size, hidden_size, num_reals, grid)
        self.correction = nn.Sequential(
            nn.Linear(2 * leaf_size + num_reals, hidden_size), nn.ReLU(), nn.Linear(hidden_size, leaf_size)
        )

    def forward(self, left, right):
        correction = self.correction(join_input(left, right, self.num_reals)).to(left.dtype)
        return join_output(torch.tanh(left + right + correction), left, right, self.num_reals, self.grid)
