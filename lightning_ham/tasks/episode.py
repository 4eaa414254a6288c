"""Episodes: a batch of task instances as tensors for a model."""

from typing import NamedTuple

import torch
from torch import Tensor


class Episodes(NamedTuple):
    """A batch of episodes.

    In a task that predicts its own end, the last output bit is the end flag. All bits of a timestep with a
    symbol are scored, with an end flag of 0; in the one timestep after the last symbol only the end flag is
    scored, with target 1.

    Attributes:
        inputs: The memory's cells, zeros where blank, float32 of shape [batch, capacity, input_size].
        occupied: The cells that hold input, bool of shape [batch, capacity].
        targets: Zeros and ones, float32 of shape [batch, timesteps, output_size], where ``timesteps`` is
            the number in the longest episode.
        scored: True for output bits that count, bool of shape [batch, timesteps, output_size]; False after
            an episode's end.
        lengths: The number of cells that each instance occupies, int64 of shape [batch].
    """

    inputs: Tensor
    occupied: Tensor
    targets: Tensor
    scored: Tensor
    lengths: Tensor

    @property
    def first_cells(self) -> Tensor:
        """The first cell of each instance, int64 of shape [batch]."""
        return self.occupied.int().argmax(dim=1)


def shifted(episodes: Episodes, generator: torch.Generator | None = None) -> Episodes:
    """Return the same episodes, moving a random number of blank cells (uniform) before each instance."""
    spare = episodes.occupied.shape[1] - episodes.lengths
    before = (torch.rand(spare.shape, generator=generator) * (spare + 1)).long()
    cells = torch.arange(episodes.occupied.shape[1])
    source = (cells - before.unsqueeze(1)) % len(cells)
    inputs = episodes.inputs.gather(1, source.unsqueeze(-1).expand_as(episodes.inputs))
    return episodes._replace(inputs=inputs, occupied=episodes.occupied.gather(1, source))


def capacity_for(length: int) -> int:
    """Return the smallest power of two that is at least ``length``: the leaves of a tree for ``length`` cells.

    >>> [capacity_for(length) for length in (1, 2, 3, 32, 33)]
    [1, 2, 4, 32, 64]
    """
    if length < 1:
        raise ValueError(f"Expected a length of at least 1, but got {length}")
    return 1 << (length - 1).bit_length()


def to_bits(integers: Tensor, num_bits: int) -> Tensor:
    """Return non-negative integers [...] as float32 bits [..., num_bits], most significant first.

    >>> to_bits(torch.tensor([6, 1]), 3)
    tensor([[1., 1., 0.],
            [0., 0., 1.]])
    """
    shifts = torch.arange(num_bits - 1, -1, -1, device=integers.device)
    return (integers.unsqueeze(-1) >> shifts & 1).float()


def from_bits(bits: Tensor) -> Tensor:
    """Return bits [..., num_bits], most significant first, as int64 integers [...]: the inverse of `to_bits`."""
    shifts = torch.arange(bits.shape[-1] - 1, -1, -1, device=bits.device)
    return (bits.long() << shifts).sum(-1)
