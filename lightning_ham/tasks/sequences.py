"""Shared by tasks on sequences: numbers and (key, value) pairs as bits, their checks, samples and guide."""

import math

import torch
from torch import Tensor

from lightning_ham.tasks.checks import expect_integer, expect_two
from lightning_ham.tasks.episode import Episodes, from_bits, to_bits

Pair = tuple[int, int]

KEY_BITS = 5
VALUE_BITS = 5
PAIR_BITS = KEY_BITS + VALUE_BITS
NUM_KEYS = 1 << KEY_BITS
NUM_VALUES = 1 << VALUE_BITS
NUM_PAIRS = 1 << PAIR_BITS


def guide_in_order(order: Tensor, episodes: Episodes) -> Tensor:
    """Return a guide that reads the cells in ascending order, equal ones from the left, then the last one again.

    Args:
        order: Sort key of each cell, blank ones included, [batch, capacity].
        episodes: The episodes of these cells.
    """
    cells = order.double().masked_fill(~episodes.occupied, math.inf).argsort(dim=1, stable=True)
    timesteps = torch.arange(episodes.targets.shape[1], device=order.device)
    place = torch.minimum(timesteps, episodes.lengths.unsqueeze(1) - 1)
    return cells.gather(1, place).unsqueeze(-1)


def draw_below(limits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw an integer for each limit, uniform from 0 to below the limit."""
    # In 64 bits: a product in 32 bits may round up to the limit itself.
    return (torch.rand(limits.shape, dtype=torch.float64, generator=generator) * limits).long()


def draw_keys(lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw keys [batch, longest], uniform or, in hard cases, from 2 to 8 adjacent keys only.

    The padding beyond a row's length is larger than every key, so it stays last when the row is sorted.
    """
    widths = torch.where(hard, torch.randint(2, 9, lengths.shape, generator=generator), NUM_KEYS)
    starts = draw_below(NUM_KEYS - widths + 1, generator)
    longest = int(lengths.max())
    offsets = torch.rand(len(lengths), longest, generator=generator) * widths.unsqueeze(1)
    keys = starts.unsqueeze(1) + offsets.long()
    return keys.masked_fill(torch.arange(longest) >= lengths.unsqueeze(1), NUM_KEYS)


def to_integers(bits: Tensor) -> list[int]:
    """Return bits [symbols, bits], most significant first, as a list of integers."""
    numbers: list[int] = from_bits(bits).tolist()
    return numbers


def pairs_to_bits(pairs: list[Pair]) -> Tensor:
    """Return (key, value) pairs as bits [pairs, 10]: the key's bits, then the value's."""
    return to_bits(torch.tensor([key * NUM_VALUES + value for key, value in pairs]), PAIR_BITS)


def bits_to_pairs(bits: Tensor) -> list[Pair]:
    """Return the pairs encoded by these bits: the inverse of `pairs_to_bits`."""
    return [divmod(integer, NUM_VALUES) for integer in to_integers(bits)]


def expect_pair(candidate: object, place: str) -> int:
    """Return the key of the candidate if it is a (key, value) pair."""
    key, value = expect_two(candidate, "a (key, value) pair", place)
    expect_integer(value, "values", place, limit=NUM_VALUES)
    return expect_integer(key, "keys", place, limit=NUM_KEYS)
