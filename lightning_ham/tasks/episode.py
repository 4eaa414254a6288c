"""Episodes as tensors: how a batch of task instances looks to a model."""

from typing import NamedTuple

import torch
from torch import Tensor


class Episodes(NamedTuple):
    """A batch of episodes.

    In a task that predicts its own end, the last output bit is the end flag. Every bit of a timestep that
    carries a symbol is scored, with an end flag of 0; one more timestep follows, of which only the end flag
    is scored, as 1.

    Attributes:
        inputs: One cell of memory each, zeros where blank, float32 of shape [batch, capacity, input_size].
        occupied: The cells that hold input, bool of shape [batch, capacity].
        targets: Zeros and ones, float32 of shape [batch, timesteps, output_size], where ``timesteps`` is that
            of the longest episode.
        scored: The output bits that count, bool of shape [batch, timesteps, output_size]; none after an
            episode's end.
        lengths: The number of cells that each instance occupies, int64 of shape [batch].
    """

    inputs: Tensor
    occupied: Tensor
    targets: Tensor
    scored: Tensor
    lengths: Tensor

    @property
    def first_cells(self) -> Tensor:
        """The cell that each instance begins at, int64 of shape [batch]."""
        return self.occupied.int().argmax(dim=1)


def shifted(episodes: Episodes, generator: torch.Generator | None = None) -> Episodes:
    """Return the same episodes, each with a uniformly drawn number of its blank cells before the instance."""
    spare = episodes.occupied.shape[1] - episodes.lengths
    before = (torch.rand(spare.shape, generator=generator) * (spare + 1)).long()
    cells = torch.arange(episodes.occupied.shape[1])
    source = (cells - before.unsqueeze(1)) % len(cells)
    inputs = episodes.inputs.gather(1, source.unsqueeze(-1).expand_as(episodes.inputs))
    return episodes._replace(inputs=inputs, occupied=episodes.occupied.gather(1, source))


def capacity_for(length: int) -> int:
    """Return the smallest power of two that is at least ``length``: the leaves of a tree for so many cells.

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
