"""When a bit, a symbol and a sequence are wrong, by the HAM paper's protocol: here and nowhere else."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_ham.tasks import Episodes


def wrong_bits(outputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
    """Return which scored bits are wrong: logit and target are on different sides. Bool, shaped as ``outputs``.

    Args:
        outputs: Logits, ``[batch, timesteps, bits]``.
        targets: Zeros and ones, shaped as ``outputs``.
        scored: Which bits count, bool, shaped as ``outputs``.
    """
    return ((outputs > 0) != (targets > 0.5)) & scored


class ErrorCounts(NamedTuple):
    """What is wrong in a batch, and how much of it counts.

    Attributes:
        wrong_sequences: Which sequences are wrong, bool of shape ``[batch]``.
        scored_sequences: Which have anything that counts, bool of shape ``[batch]``.
        wrong: Numbers of wrong sequences, symbols and bits, int64 of shape ``[3]``.
        total: Numbers of sequences, symbols and bits that count, int64 of shape ``[3]``.
    """

    wrong_sequences: Tensor
    scored_sequences: Tensor
    wrong: Tensor
    total: Tensor


def count_errors(outputs: Tensor, episodes: Episodes) -> ErrorCounts:
    """Count what is wrong in the answers to a batch.

    A symbol (all bits of one timestep, the end flag among them) and a sequence are wrong if a single scored bit of
    theirs is. Where nothing is scored, there is nothing to count.

    Args:
        outputs: Logits, ``[batch, timesteps, output_size]``.
        episodes: The episodes that they answer.
    """
    bits = wrong_bits(outputs, episodes.targets, episodes.scored)
    wrong, total = _by_kind(bits), _by_kind(episodes.scored)
    return ErrorCounts(wrong[0], total[0], *(torch.stack([kind.sum() for kind in kinds]) for kinds in (wrong, total)))


def _by_kind(bits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return in which sequences there is such a bit, in which symbols, and the bits themselves."""
    symbols = bits.any(dim=-1)
    return symbols.any(dim=-1), symbols, bits
