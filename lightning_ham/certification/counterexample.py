"""Sequences of operations that lead to a value of a node, and then show that the model is wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from lightning_ham.certification.closure import Leaves, Level
from lightning_ham.certification.meanings import PUSH, Meanings, operation
from lightning_ham.models import AnswerWarning
from lightning_ham.tasks.structures import Operation, Operations, Structure

Array = np.ndarray[Any, Any]

_MOST_PUSHES = 64
"""Different last pushes that are tried."""
_LONGEST = 1 << 14
"""Most operations of a candidate."""


class Histories:
    """How values of nodes come about.

    Args:
        task: The data structure.
        meanings: Its meanings.
        leaves: Its leaves.
        levels: The levels found so far, leaves first; more may be added.
    """

    def __init__(self, task: Structure, meanings: Meanings, leaves: Leaves, levels: list[Level]) -> None:
        self._task, self._meanings, self._leaves, self._levels = task, meanings, leaves, levels

    def candidates(self, height: int, row: int, kind: int) -> Iterator[Operations]:
        """Yield valid sequences that make a node of this value, let the operation come to it, and reveal what follows.

        Args:
            height: Its height.
            row: Its row in the level.
            kind: The operation's kind.
        """
        if self._levels[height].cost[row] > _LONGEST:
            return
        operations, size = self._sequence([self._writes(leaf) for leaf in self._leaves_below(height, row)])
        num_leaves = 1 << height
        last: list[Operation] = [("pop",)]
        if kind == PUSH:
            pushes = range(self._meanings.num_pushes)
            last = [operation(self._task, push) for push in islice(pushes, _MOST_PUSHES)]
        for one in last:
            if one == ("pop",) and size == 0:
                continue
            inside = size + (-1 if one == ("pop",) else 1)
            yield [*operations, one, *[("pop",)] * inside]
            filled = [operation(self._task, push % self._meanings.num_pushes) for push in range(num_leaves - inside)]
            yield [*operations, one, *filled, *[("pop",)] * (inside + len(filled))]

    def _leaves_below(self, height: int, row: int) -> list[int]:
        """Return the rows of the leaves below a node, from left to right."""
        rows = [row]
        for level in reversed(self._levels[1 : height + 1]):
            rows = [int(child) for row in rows for child in (level.left[row], level.right[row])]
        return rows

    def _writes(self, leaf: int) -> list[int]:
        """Return what was written to a leaf, in order: 0 for a pop, 1 + p for push p."""
        level, writes = self._leaves.level, []
        while level.left[leaf] >= 0:
            writes.append(int(level.right[leaf]))
            leaf = int(level.left[leaf])
        return writes[::-1]

    def _sequence(self, writes: list[list[int]]) -> tuple[Operations, int]:
        """Return operations that write so to the leaves, from left to right, and how many elements they leave."""
        pops = self._task.pops
        before: list[int] = []
        after: list[int] = []
        for leaf in writes:
            is_popped = bool(leaf) and leaf[-1] == 0
            if pops == "last" and is_popped:  # stays taken while the leaves to its right are written
                before += leaf[:-1]
                after.append(0)
            elif pops == "first":  # a leaf has one push; pops come when all have been pushed
                before += leaf[:1]
                after += leaf[1:]
            else:
                before += leaf
        order = before + after
        operations = [("pop",) if write == 0 else operation(self._task, write - 1) for write in order]
        size = sum(-1 if one == ("pop",) else 1 for one in operations)
        return operations, size


def failing_instance(model: Any, candidates: Iterable[Operations]) -> Operations | None:
    """Return the first candidate that the model gets wrong, up to its first wrong answer; None without one."""
    for instance in candidates:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AnswerWarning)
            (answer,) = model.solve([instance])
        expected = model.task.oracle(instance)
        wrong = next((i for i, (got, want) in enumerate(zip(answer, expected, strict=True)) if got != want), None)
        if wrong is not None:
            pops = [i for i, one in enumerate(instance) if tuple(one) == ("pop",)]
            return instance[: pops[wrong] + 1]
    return None
