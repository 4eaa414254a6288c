"""The one definition of wrong bits, symbols and sequences, by the HAM paper's protocol."""

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
        scored: True for bits that count, bool, shaped as ``outputs``.
    """
    return ((outputs > 0) != (targets > 0.5)) & scored


class ErrorCounts(NamedTuple):
    """Wrong and scored sequences, symbols and bits in a batch.

    Attributes:
        wrong_sequences: True for wrong sequences, bool of shape ``[batch]``.
        scored_sequences: True for sequences with a scored bit, bool of shape ``[batch]``.
        wrong: Numbers of wrong sequences, symbols and bits, int64 of shape ``[3]``.
        total: Numbers of scored sequences, symbols and bits, int64 of shape ``[3]``.
    """

    wrong_sequences: Tensor
    scored_sequences: Tensor
    wrong: Tensor
    total: Tensor


def count_errors(outputs: Tensor, episodes: Episodes) -> ErrorCounts:
    """Count the errors in the answers to a batch.

    A symbol (all bits of one timestep, end flag included) or a sequence is wrong if any of its scored bits is wrong.
    Symbols and sequences without a scored bit do not count.

    Args:
        outputs: Logits, ``[batch, timesteps, output_size]``.
        episodes: The answered episodes.
    """
    bits = wrong_bits(outputs, episodes.targets, episodes.scored)
    wrong, total = _by_kind(bits), _by_kind(episodes.scored)
    return ErrorCounts(wrong[0], total[0], *(torch.stack([kind.sum() for kind in kinds]) for kinds in (wrong, total)))


def _by_kind(bits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which sequences have such a bit, which symbols have one, and the bits themselves."""
    symbols = bits.any(dim=-1)
    return symbols.any(dim=-1), symbols, bits
