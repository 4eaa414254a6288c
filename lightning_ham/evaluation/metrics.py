"""Errors of sequences, symbols and bits as a torchmetrics metric: in total and by length of the episode."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_ham.evaluation.errors import count_errors
from lightning_ham.tasks import Episodes, Lengths


class SequenceErrors(Metric):
    """The shares of sequences, symbols and bits that a model got wrong.

    It sums the counts of :func:`lightning_ham.evaluation.errors.count_errors` over batches and processes.

    ``compute`` returns ``sequence_error``, ``symbol_error`` and ``bit_error`` as scalars in [0, 1], and
    ``sequence_error/LOW-HIGH`` for every bucket of lengths with episodes.

    Args:
        bucket_edges: Highest length of each bucket, ascending; longer episodes count in the totals only.
    """

    full_state_update = False
    higher_is_better = False
    wrong: Tensor
    total: Tensor
    bucket_wrong: Tensor
    bucket_total: Tensor
    _edges: Tensor

    def __init__(self, bucket_edges: Sequence[int] = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)) -> None:
        super().__init__()
        if list(bucket_edges) != sorted(set(bucket_edges)) or not bucket_edges or bucket_edges[0] < 1:
            raise ValueError(f"Expected argument `bucket_edges` to be ascending and positive, but got {bucket_edges}.")
        self.bucket_edges = tuple(bucket_edges)
        self.register_buffer("_edges", torch.tensor(self.bucket_edges), persistent=False)
        buckets = len(bucket_edges) + 1  # the last one takes longer episodes
        for name, size in (("wrong", 3), ("total", 3), ("bucket_wrong", buckets), ("bucket_total", buckets)):
            self.add_state(name, torch.zeros(size, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, episodes: Episodes) -> None:
        """Count a batch.

        Args:
            outputs: Logits ``[batch, timesteps, output_size]``.
            episodes: The answered episodes.
        """
        counts = count_errors(outputs, episodes)
        self.wrong += counts.wrong
        self.total += counts.total
        bucket = torch.bucketize(episodes.lengths, self._edges)
        self.bucket_wrong.index_add_(0, bucket, counts.wrong_sequences.long())
        self.bucket_total.index_add_(0, bucket, counts.scored_sequences.long())

    def compute(self) -> dict[str, Tensor]:
        """Return the errors since the last reset."""
        errors = self.wrong / self.total.clamp(min=1)
        result = dict(zip(("sequence_error", "symbol_error", "bit_error"), errors.unbind(), strict=True))
        low = 1
        for index, high in enumerate(self.bucket_edges):
            if self.bucket_total[index]:
                result[f"sequence_error/{Lengths(low, high)}"] = self.bucket_wrong[index] / self.bucket_total[index]
            low = high + 1
        return result
