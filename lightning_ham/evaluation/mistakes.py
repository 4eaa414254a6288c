"""Wrong answers: a count of each kind, and the shortest as examples."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor

from lightning_ham.evaluation.errors import wrong_bits
from lightning_ham.tasks import Episodes, Task

EXAMPLES = 3
"""Number of wrong episodes kept as examples, the shortest ones."""


class Example(TypedDict):
    """The first wrong symbol of a wrong episode."""

    length: int
    timestep: int
    """The first timestep with a wrong bit, counted from 0."""
    expected: str
    """The right symbol there, as the task writes it, or ``end``."""
    got: str
    wrong_symbols: int
    """Wrong symbols in the whole episode."""
    symbols: int
    """Scored symbols in the whole episode."""


class Mistakes(TypedDict):
    """Numbers of wrong sequences by kind; each sequence has exactly one kind."""

    end: int
    """The end came too early or too late."""
    order: int
    """The right symbols in the wrong order, with the right end."""
    symbols: int
    """Wrong symbols, with the right end."""
    examples: list[Example]


class MistakeCounter:
    """Counts the kinds of wrong sequences, a batch at a time.

    Args:
        task: The task of the episodes.
    """

    def __init__(self, task: Task[Any, Any]) -> None:
        self.task = task
        self._kinds = {"end": 0, "order": 0, "symbols": 0}
        self._examples: list[Example] = []

    def update(self, outputs: Tensor, episodes: Episodes) -> None:
        """Count a batch.

        Args:
            outputs: Logits ``[batch, timesteps, output_size]``.
            episodes: The answered episodes.
        """
        wrong = wrong_bits(outputs, episodes.targets, episodes.scored)
        rows = wrong.any(dim=-1).any(dim=-1).nonzero().squeeze(-1)
        if not len(rows):
            return
        wrong, bits, targets, scored = (
            tensor[rows].cpu() for tensor in (wrong, outputs > 0, episodes.targets > 0.5, episodes.scored)
        )
        wrong_symbols = wrong.any(dim=-1)  # [wrong sequences, timesteps]
        wrong_end = torch.zeros(len(rows), dtype=torch.bool)
        if self.task.predicts_end:
            wrong_end = wrong[..., -1].any(dim=-1)
        reordered = (_sorted_symbols(bits, scored) == _sorted_symbols(targets, scored)).all(dim=-1) & ~wrong_end
        self._kinds["end"] += int(wrong_end.sum())
        self._kinds["order"] += int(reordered.sum())
        self._kinds["symbols"] += int((~wrong_end & ~reordered).sum())
        lengths = episodes.lengths[rows].tolist()
        for row in sorted(range(len(rows)), key=lambda row: lengths[row])[:EXAMPLES]:
            first = int(wrong_symbols[row].nonzero()[0])
            self._examples.append(
                {
                    "length": lengths[row],
                    "timestep": first,
                    "expected": self._text(targets[row, first]),
                    "got": self._text(bits[row, first]),
                    "wrong_symbols": int(wrong_symbols[row].sum()),
                    "symbols": int(scored[row].any(dim=-1).sum()),
                }
            )
        self._examples = sorted(self._examples, key=lambda example: example["length"])[:EXAMPLES]

    def compute(self) -> Mistakes:
        """Return the counts and examples."""
        kinds = self._kinds
        return {
            "end": kinds["end"],
            "order": kinds["order"],
            "symbols": kinds["symbols"],
            "examples": self._examples,
        }

    def _text(self, bits: Tensor) -> str:
        """Return the symbol of one timestep's bits, as the task writes it."""
        if self.task.predicts_end and bits[-1]:
            return "end"
        answer = self.task.symbols_to_answer(self.task.symbol_bits(bits).unsqueeze(0))
        return str(answer[0] if isinstance(answer, list) and len(answer) == 1 else answer)


def _sorted_symbols(bits: Tensor, scored: Tensor) -> Tensor:
    """Return the symbols of every episode as numbers in ascending order, ``[batch, timesteps]``; -1 if not scored."""
    powers = 2 ** torch.arange(bits.shape[-1])
    symbols = ((bits & scored) * powers).sum(dim=-1)
    return symbols.masked_fill(~scored.any(dim=-1), -1).sort(dim=-1).values
