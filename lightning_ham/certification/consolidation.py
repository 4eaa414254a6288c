"""Training until certified: states that no operation can tell apart are drawn together.

A network that was trained on examples has many values for what is one state, and at some height two of them meet that
were never seen together. Every round finds the values that nodes can take (a sample of them, where they are many), and
chooses for every meaning the value that most pairs of children lead to. Some updates then draw the results of JOIN to
it, keep the branches and outputs right with a margin, and keep all numbers away from the boundaries of rounding. The
rounds end when the network is certified.

What a branch must be is taken from the meanings of the children (:mod:`.meanings`), not from examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_ham.arguments import expect_integer, expect_number
from lightning_ham.certification.certificate import Certificate
from lightning_ham.certification.closure import (
    Leaves,
    Level,
    Limits,
    TooMany,
    all_cells,
    find_leaves,
    join_all,
    wrong_branches,
)
from lightning_ham.certification.meanings import NEVER, NOT_ASKED, POP, PUSH, Meanings, meanings_of
from lightning_ham.certification.search import Certifiable, Refusal, certify, structure_of
from lightning_ham.certification.transformations import Transformations
from lightning_ham.memory.arguments import check_grid
from lightning_ham.memory.transforms import on_grid
from lightning_ham.tasks.episode import to_bits
from lightning_ham.tasks.structures import VALUE_BITS

Array = np.ndarray[Any, Any]


@dataclass
class ConsolidationOptions:
    """How a trained data structure is certified.

    Raises:
        ValueError: If an option is out of its range.
    """

    grid: float = 1.0
    """Nodes are rounded to multiples of this power of two; it is set in the model."""
    rounds: int = 0
    """Most rounds; 0: do not certify."""
    minutes: float = 30.0
    """Most time for all rounds."""
    updates: int = 300
    """Updates in a round."""
    batch_size: int = 1024
    """Pairs of nodes in an update."""
    learning_rate: float = 5e-4
    """Of Adam."""
    sample: int = 150
    """Values of one meaning and height that a round looks at, at most."""
    seed: int = 0
    """Of the samples."""

    def __post_init__(self) -> None:
        for name, least in (("rounds", 0), ("updates", 1), ("batch_size", 8), ("sample", 1), ("seed", 0)):
            expect_integer(name, getattr(self, name), at_least=least)
        for name in ("minutes", "learning_rate"):
            expect_number(name, getattr(self, name), above=0)
        check_grid(self.grid)

    def check(self, model: Certifiable) -> None:
        """Raise a ValueError if ``rounds`` are wanted of a model that cannot be certified."""
        if self.rounds:
            task, _ = structure_of(model)
            meanings_of(task)


class Round(NamedTuple):
    """What was found in a round, before its updates."""

    number: int
    """From 1 on."""
    values: int
    """Values of leaves and nodes that were looked at."""
    wrong: int
    """How many go wrong."""
    height: int
    """Height up to which it looked."""
    is_closed: bool
    """Whether all values were found."""
    seconds: float
    """Since the beginning."""

    def __str__(self) -> str:
        """Return it in a line."""
        values = f"{self.values:,} values" if self.is_closed else f"{self.values:,} values or more"
        return f"certify: round {self.number}, {values} up to height {self.height}, {self.wrong:,} go wrong"


_ENOUGH_WRONG = 400
"""A round looks no higher where so many values go wrong."""
_BRANCH_MARGIN = 2.0
"""Least logit of a right branch that no update enlarges."""
_OUTPUT_MARGIN = 3.0
"""The same of outputs."""
_NEAR = 0.3
"""Share of the grid within which a number need not come nearer to its value."""
_LEVEL_LIMITS = Limits(values=1_000_000, height=48)
_MOST_LEAVES = Limits(values=3_000)


def consolidate(
    model: Certifiable,
    options: ConsolidationOptions | None = None,
    report: Callable[[Round], None] | None = None,
) -> Certificate | Refusal:
    """Train a model of a data structure until it is certified; return the certificate, or why there is none.

    Args:
        model: A trained model, which is changed.
        options: How.
        report: Called with every round.

    Raises:
        ValueError: If the model cannot be certified at all.
    """
    options = options or ConsolidationOptions()
    task, controller = structure_of(model)
    meanings = meanings_of(task)
    controller.memory.grid = options.grid
    generator = np.random.default_rng(options.seed)
    trainer = _Trainer(model, meanings, options, generator)
    started = time.monotonic()
    refusal = Refusal("not certified: no round was made.")
    for number in range(1, options.rounds + 1):
        found = _look(model, meanings, options, generator)
        seconds = time.monotonic() - started
        if report:
            values = len(found.leaves.level) + sum(len(level) for level in found.levels)
            report(Round(number, values, found.num_wrong, len(found.levels), found.is_closed, seconds))
        if found.is_closed and not found.num_wrong:
            outcome = certify(model, Limits(seconds=60 * options.minutes))
            if isinstance(outcome, Certificate):
                return outcome
            refusal = outcome
        elif found.num_wrong:
            refusal = Refusal(
                f"not certified: {found.num_wrong:,} values go wrong after {number} rounds.", num_wrong=found.num_wrong
            )
        else:
            refusal = Refusal(f"not certified: too many values after {number} rounds.")
        if seconds > 60 * options.minutes:
            break
        trainer.train(found)
    return refusal


@dataclass
class _Found:
    """What a round found."""

    leaves: Leaves
    levels: list[Level]
    num_wrong: int
    is_closed: bool
    margins: list[Array]
    """The least margin of the branches of each level's rows."""


def _look(
    model: Certifiable, meanings: Meanings, options: ConsolidationOptions, generator: np.random.Generator
) -> _Found:
    """Return the values that nodes take, or a sample of them, and which go wrong."""
    task, controller = structure_of(model)
    transformations = Transformations(controller)
    leaves = find_leaves(task, meanings, transformations, _MOST_LEAVES, is_strict=False)
    levels, margins = [leaves.level], [np.full(len(leaves.level), np.inf)]
    num_wrong, is_closed = 0, False
    while len(levels) <= _LEVEL_LIMITS.height and num_wrong < _ENOUGH_WRONG and not is_closed:
        try:
            level = join_all(levels[-1], meanings, transformations, _LEVEL_LIMITS, options.sample, generator)
        except TooMany:
            break
        margin = np.minimum(*wrong_branches(level, leaves.queries, meanings, transformations))
        num_wrong += int((margin <= 0).sum())
        is_closed = not level.is_sample and any(level.same_as(earlier) for earlier in levels[1:])
        levels.append(level)
        margins.append(margin)
    return _Found(leaves, levels[1:], num_wrong, is_closed, margins[1:])


class _Trainer:
    """Updates of a model from what rounds have found.

    Args:
        model: The model.
        meanings: Its meanings.
        options: How.
        generator: Source of samples.
    """

    def __init__(
        self, model: Certifiable, meanings: Meanings, options: ConsolidationOptions, generator: np.random.Generator
    ) -> None:
        self._task, self._controller = structure_of(model)
        self._meanings, self._options, self._generator = meanings, options, generator
        self._targets: dict[tuple[int, int, int], Array] = {}
        """The value of every meaning with branches, once chosen."""
        self._freed: Array | None = None

    def train(self, found: _Found) -> None:
        """Make the updates of a round."""
        self._choose(found)
        memory, options = self._controller.memory, self._options
        pairs = self._pairs(found)
        parameters = [*memory.parameters(), *self._controller.head.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=options.learning_rate)
        torch_generator = torch.Generator().manual_seed(int(self._generator.integers(1 << 31)))
        cells = all_cells(self._task, self._meanings).to(parameters[0])
        taken = np.flatnonzero(found.leaves.pushes >= 0)
        taken_values = self._tensor(found.leaves.level.values[taken])
        with torch.enable_grad():
            for _ in range(options.updates):
                optimizer.zero_grad()
                queries, away = self._embedded(cells)
                loss = away + self._loss_of_pairs(pairs, queries, torch_generator)
                loss = loss + self._loss_of_leaves(taken_values, queries, torch_generator)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()

    def _tensor(self, steps: Array) -> Tensor:
        """Return values in steps as a tensor like the memory's parameters."""
        blank = self._controller.memory.embed.blank
        return torch.from_numpy(steps.astype(np.float64) * self._options.grid).to(blank)

    def _choose(self, found: _Found) -> None:
        """Choose the values of meanings that have none yet."""
        best: dict[tuple[int, int, int], tuple[bool, float, Array]] = {}
        for level, margins in zip(found.levels, found.margins, strict=True):
            kinds = list(zip(level.meanings.tolist(), *level.branches.T.tolist(), strict=True))
            totals: dict[tuple[int, int, int], int] = {}
            for kind, count in zip(kinds, level.counts.tolist(), strict=True):
                totals[kind] = totals.get(kind, 0) + count
            for kind, count, margin, value in zip(kinds, level.counts.tolist(), margins, level.values, strict=True):
                rank = (bool(margin > 0.3), count / totals[kind])
                if kind not in best or rank > best[kind][:2]:
                    best[kind] = (*rank, value)
        for kind, (_, _, value) in best.items():
            self._targets.setdefault(kind, value)
        if self._freed is None:
            freed = found.leaves.level.values[found.leaves.level.right == 0]
            values, counts = np.unique(freed, axis=0, return_counts=True)
            self._freed = values[counts.argmax()]

    def _pairs(self, found: _Found) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return children, values to draw their parents to, and branches: one pair for every row, and random ones."""
        lefts, rights, values, branches = [], [], [], []
        for below, level in zip([found.leaves.level, *found.levels[:-1]], found.levels, strict=True):
            left = np.concatenate((level.left, self._generator.integers(len(below), size=4 * len(level) + 2000)))
            right = np.concatenate((level.right, self._generator.integers(len(below), size=4 * len(level) + 2000)))
            meaning = self._meanings.joined(below.meanings[left], below.meanings[right])
            can_be = np.flatnonzero(meaning != NEVER)
            left, right, meaning = left[can_be], right[can_be], meaning[can_be]
            branch = self._meanings.branches(below.meanings[left], below.meanings[right])
            kinds_here = [tuple(kind) for kind in np.c_[meaning, branch].tolist()]
            known = [i for i, kind in enumerate(kinds_here) if kind in self._targets]
            lefts.append(below.values[left[known]])
            rights.append(below.values[right[known]])
            values.append(np.stack([self._targets[kinds_here[i]] for i in known]))
            branches.append(branch[known])
        return (
            self._tensor(np.concatenate(lefts)),
            self._tensor(np.concatenate(rights)),
            self._tensor(np.concatenate(values)),
            torch.from_numpy(np.concatenate(branches)),
        )

    def _embedded(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries of all operations, and a loss that keeps them away from boundaries of rounding."""
        raw = self._controller.memory.embed.mlp(cells)
        queries = on_grid(raw, self._options.grid)
        return queries, self._distance(raw, queries.detach())

    def _distance(self, raw: Tensor, value: Tensor) -> Tensor:
        """Return a loss that draws numbers before rounding towards a value."""
        return torch.relu((raw - value).abs() - _NEAR * self._options.grid).square().sum(-1).mean()

    def _loss_of_pairs(self, pairs: tuple[Tensor, ...], queries: Tensor, generator: torch.Generator) -> Tensor:
        memory, size = self._controller.memory, self._options.batch_size
        some = torch.randint(len(pairs[0]), (size,), generator=generator)
        left, right, value, branches = (part[some] for part in pairs)
        raw = self._unrounded(memory.join, left, right)
        nodes = on_grid(raw, self._options.grid)
        loss = self._distance(raw, value)
        push = torch.randint(1, len(queries), (size,), generator=generator)
        for kind, query in ((PUSH, queries[push]), (POP, queries[:1].expand(size, -1))):
            logits = memory.search(nodes.unsqueeze(1), query)[:, 0]
            branch = branches[:, kind]
            short = torch.relu(_BRANCH_MARGIN - torch.where(branch == 1, logits, -logits))
            loss = loss + (short * (branch != NOT_ASKED)).mean()
        return loss

    def _loss_of_leaves(self, taken: Tensor, queries: Tensor, generator: torch.Generator) -> Tensor:
        memory, size = self._controller.memory, self._options.batch_size // 8
        some = torch.randint(len(taken), (size,), generator=generator)
        raw = self._unrounded(memory.write_leaf, taken[some], queries[:1].expand(size, -1))
        loss = self._distance(raw, self._tensor(self._freed).expand_as(raw)) if self._freed is not None else 0.0
        blank = memory.embed.blank
        free = on_grid(blank, self._options.grid).expand(size, -1)
        if self._meanings.is_free(self._meanings.freed):
            is_new = torch.rand(size, 1, generator=generator) < 0.3
            free = torch.where(is_new, free, on_grid(raw, self._options.grid).detach())
        push = torch.randint(self._meanings.num_pushes, (size,), generator=generator)
        pushed = self._unrounded(memory.write_leaf, free, queries[1 + push])
        leaves = on_grid(pushed, self._options.grid)
        signs = 2 * to_bits(push % (1 << VALUE_BITS), VALUE_BITS).to(leaves) - 1
        outputs = self._controller.head(leaves)[:, :VALUE_BITS]
        loss = (
            loss
            + self._distance(pushed, leaves.detach())
            + self._distance(blank, on_grid(blank, self._options.grid).detach())
        )
        return loss + torch.relu(_OUTPUT_MARGIN - signs * outputs).mean()

    def _unrounded(self, transformation: Any, *arguments: Tensor) -> Tensor:
        """Return the result of JOIN or WRITE before it is rounded."""
        transformation.grid = None
        try:
            result: Tensor = transformation(*arguments)
        finally:
            transformation.grid = self._options.grid
        return result
