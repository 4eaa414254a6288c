"""All values that the nodes of a memory can take, level by level, each with its meaning.

A *level* of the tree are its nodes of one height. Level 0 are the leaves: blank, or after any sequence of writes. Level
h + 1 holds JOIN of all pairs of level h that can be siblings. When a level has the same rows as an earlier one, the
levels between them repeat for ever: all values in trees of any depth are found.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from lightning_ham.certification.meanings import NEVER, NOT_ASKED, POP, PUSH, Meanings, operation
from lightning_ham.certification.transformations import Rounded, Transformations
from lightning_ham.tasks.episode import to_bits
from lightning_ham.tasks.structures import VALUE_BITS, Structure

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 15
"""Pairs that are joined at a time."""


@dataclass
class Limits:
    """When to give up: the values of a network that is not nearly discrete are too many."""

    values: int = 200_000
    """Most different values at one level."""
    height: int = 256
    """Most levels."""
    seconds: float = 3600.0
    """Most time."""


class TooMany(Exception):
    """The values of nodes are more than the limits allow."""


@dataclass
class Level:
    """The rows of a level: different values, meanings and branches, and how to get to each with the fewest operations.

    All arrays have one entry per row. For leaves, ``left`` is the row before the last write, or -1 for blank, and
    ``right`` is the operation that wrote: 0 for a pop, 1 + p for push p.
    """

    values: Array
    """Multiples of the grid, int16 ``[rows, leaf_size]``."""
    meanings: Array
    """See :class:`Meanings`, int64."""
    branches: Array
    """Where a push and a pop must go, int8 ``[rows, 2]``; for leaves, :data:`NOT_ASKED`."""
    left: Array
    """Row of the left child in the level below, int64."""
    right: Array
    """Row of the right child."""
    cost: Array
    """Operations that lead to it, int64."""
    slack: float
    """Least distance of anything rounded from a boundary, less the bound of errors."""
    pairs: int
    """How many pairs were joined."""
    counts: Array
    """How many pairs lead to each row; 1 for leaves."""
    is_sample: bool = False
    """Whether some pairs were left out."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def key(self) -> Array:
        """Return the rows without their origins, int16 ``[rows, leaf_size + 3]``."""
        return _key(self.values, self.meanings, self.branches)

    def same_as(self, other: Level) -> bool:
        """Return whether both have the same rows."""
        mine, others = self.key(), other.key()
        return mine.shape == others.shape and bool((mine == others).all())


class Leaves(NamedTuple):
    """The leaves, as level 0, and what else their checks need."""

    level: Level
    pushes: Array
    """The last push of each taken leaf; -1 for others, int64."""
    queries: Rounded
    """The queries of a pop and of all pushes, in this order."""


def all_cells(task: Structure, meanings: Meanings) -> torch.Tensor:
    """Return the cells of a pop and of all pushes, in this order, ``[operations, input_size]``."""
    pushes = (operation(task, push) for push in range(meanings.num_pushes))
    return torch.stack([task.operation_to_cell(one) for one in (("pop",), *pushes)])


def find_leaves(
    task: Structure, meanings: Meanings, transformations: Transformations, limits: Limits, *, is_strict: bool = True
) -> Leaves:
    """Return all values of leaves, after any sequence of writes; the fewest operations lead to each.

    Args:
        task: The data structure.
        meanings: The meanings of its leaves.
        transformations: The network.
        limits: When to give up.
        is_strict: Raise at the limits; else leave the rest out.

    Raises:
        TooMany: If there are more values than the limits allow.
    """
    queries = transformations.embedded(all_cells(task, meanings).double().numpy())
    blank = transformations.blank
    all_pushes = np.arange(meanings.num_pushes)
    newest = _Written(
        blank.steps[None], np.array([meanings.blank]), np.array([-1]), np.array([-1]), np.array([-1]), np.array([0])
    )
    found, known = [newest], {(blank.steps.tobytes(), meanings.blank, -1)}
    first, is_sample = 0, False
    slack = min(float(queries.slack.min()), float(blank.slack))
    while len(newest.cost):
        taken = np.flatnonzero(newest.pushes >= 0)
        free = np.flatnonzero([push < 0 and meanings.is_free(kind) for kind, push in zip(*newest[1:3], strict=True)])
        pops = transformations.written(newest.values[taken], queries.steps[:1])
        pushes = transformations.written(newest.values[free][:, None], queries.steps[1:])
        slack = min(slack, *(float(written.slack.min(initial=np.inf)) for written in (pops, pushes)))
        before = np.concatenate((taken, np.repeat(free, len(all_pushes))))
        pushed = np.concatenate((np.full(len(taken), -1), np.tile(all_pushes, len(free))))
        written = _Written(
            np.concatenate((pops.steps, pushes.steps.reshape(-1, transformations.size))),
            np.where(pushed < 0, meanings.freed, meanings.pushed(pushed)),
            pushed,
            first + before,
            1 + pushed,
            newest.cost[before] + 1,
        )
        vectors = (value.tobytes() for value in written.values)
        keys = list(zip(vectors, written.meanings.tolist(), pushed.tolist(), strict=True))
        fresh = [
            row for key, row in {key: row for row, key in reversed(list(enumerate(keys)))}.items() if key not in known
        ]
        known.update(keys[row] for row in fresh)
        first += len(newest.cost)
        newest = _Written._make(column[fresh] for column in written)
        found.append(newest)
        if len(known) > limits.values:
            if is_strict:
                raise TooMany(f"more than {limits.values:,} values of leaves")
            is_sample = True
            break
    values, kinds, last, origin, writer, cost = (np.concatenate(columns) for columns in zip(*found, strict=True))
    branches, counts = np.full((len(cost), 2), NOT_ASKED, np.int8), np.ones(len(cost), np.int64)
    return Leaves(Level(values, kinds, branches, origin, writer, cost, slack, 0, counts, is_sample), last, queries)


class _Written(NamedTuple):
    """Leaves while they are collected."""

    values: Array
    meanings: Array
    pushes: Array
    origin: Array
    writer: Array
    cost: Array


def wrong_outputs(leaves: Leaves, transformations: Transformations) -> tuple[Array, float]:
    """Return the rows of taken leaves whose value does not come out, and the least margin of all outputs."""
    rows = np.flatnonzero(leaves.pushes >= 0)
    logits, bound = transformations.outputs(leaves.level.values[rows])
    bits = to_bits(torch.from_numpy(leaves.pushes[rows] % (1 << VALUE_BITS)), VALUE_BITS).numpy()
    margins = (np.where(bits > 0.5, logits, -logits) - bound).min(axis=1)
    return rows[margins <= 0], float(margins.min())


def wrong_branches(
    level: Level, queries: Rounded, meanings: Meanings, transformations: Transformations
) -> tuple[Array, Array]:
    """Return the margin of the branches of pops and of pushes ``[rows]``; infinite where none is asked for.

    A row's margin of pushes is the least of all pushes'.
    """
    margins = np.full((2, len(level)), np.inf)
    bound = transformations.search_bound()
    for kind, of_kind in ((PUSH, queries.steps[1:]), (POP, queries.steps[:1])):
        rows = np.flatnonzero(level.branches[:, kind] != NOT_ASKED)
        step = max(1, _CHUNK // len(of_kind))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            logits = transformations.searched(level.values[some], of_kind)
            signed = np.where(level.branches[some, kind, None] == 1, logits, -logits)
            margins[kind, some] = signed.min(axis=1) - bound
    return margins[POP], margins[PUSH]


def join_all(
    level: Level,
    meanings: Meanings,
    transformations: Transformations,
    limits: Limits,
    sample: int | None = None,
    generator: np.random.Generator | None = None,
    deadline: float | None = None,
) -> Level:
    """Return the level above: JOIN of all pairs that can be siblings.

    Args:
        level: The level below.
        meanings: The meanings of nodes.
        transformations: The network.
        limits: When to give up.
        sample: Join at most so many rows of each meaning, chosen at random.
        generator: Source of the choice.
        deadline: Time (of :func:`time.monotonic`) at which to give up.

    Raises:
        TooMany: If there are more values than the limits allow, or at the deadline.
    """
    rows = np.arange(len(level)) if sample is None else _some_of_each(level.meanings, sample, generator)
    values, kinds = level.values[rows], level.meanings[rows]
    lefts, rights = transformations.halves(values)
    slack, pairs, parts, waiting = np.inf, 0, [], 0
    step = max(1, _CHUNK // len(rows))
    for start in range(0, len(rows), step):
        if deadline is not None and time.monotonic() > deadline:
            raise TooMany("no time left")
        of_left = np.arange(start, min(start + step, len(rows)))
        joined = meanings.joined(kinds[of_left, None], kinds[None])
        i, j = np.nonzero(joined != NEVER)
        if len(i) == 0:
            continue
        left, right, meaning = of_left[i], j, joined[i, j]
        parents = transformations.joined(values[left], values[right], lefts[left] + rights[right])
        branches = meanings.branches(kinds[left], kinds[right]).astype(np.int8)
        slack, pairs = min(slack, float(parents.slack.min())), pairs + len(left)
        cost = level.cost[rows[left]] + level.cost[rows[right]]
        part = _Rows(parents.steps, meaning, branches, rows[left], rows[right], cost, np.ones(len(left), np.int64))
        parts.append(_distinct(part))
        waiting += len(parts[-1].cost)
        if waiting > 4 * limits.values:
            parts = [_distinct(_concatenated(parts))]
            waiting = len(parts[0].cost)
            if waiting > limits.values:
                raise TooMany(f"more than {limits.values:,} values of nodes")
    found = _distinct(_concatenated(parts))
    if len(found.cost) > limits.values:
        raise TooMany(f"more than {limits.values:,} values of nodes")
    is_sample = level.is_sample or len(rows) < len(level)
    return Level(*found[:6], slack, pairs, found.counts, is_sample)


class _Rows(NamedTuple):
    """Rows of a level while they are collected."""

    values: Array
    meanings: Array
    branches: Array
    left: Array
    right: Array
    cost: Array
    counts: Array


def _concatenated(parts: list[_Rows]) -> _Rows:
    return _Rows._make(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _distinct(rows: _Rows) -> _Rows:
    """Return different rows, sorted, each with the cheapest of its origins and the sum of its counts."""
    by_cost = np.argsort(rows.cost, kind="stable")
    key = np.ascontiguousarray(_key(rows.values, rows.meanings, rows.branches)[by_cost])
    whole = key.view(np.dtype((np.void, key.shape[1] * key.itemsize))).ravel()
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    counts = np.bincount(inverse.ravel(), weights=rows.counts[by_cost], minlength=len(first)).astype(np.int64)
    chosen = by_cost[first]
    return _Rows._make([*(part[chosen] for part in rows[:6]), counts])


def _key(values: Array, meanings: Array, branches: Array) -> Array:
    """Return rows ``[rows, leaf_size + 3]`` in int16."""
    return np.concatenate((values, meanings[:, None], branches), axis=1).astype(np.int16)


def _some_of_each(meanings: Array, most: int, generator: np.random.Generator | None) -> Array:
    """Return at most ``most`` rows of each meaning."""
    shuffled = (generator or np.random.default_rng(0)).permutation(len(meanings))
    by_meaning = shuffled[np.argsort(meanings[shuffled], kind="stable")]
    sorted_meanings = meanings[by_meaning]
    starts = np.flatnonzero(np.r_[True, sorted_meanings[1:] != sorted_meanings[:-1]])
    place = np.arange(len(meanings)) - np.repeat(starts, np.diff(np.r_[starts, len(meanings)]))
    return np.sort(by_meaning[place < most])


def levels_above(
    leaves: Leaves, meanings: Meanings, transformations: Transformations, limits: Limits
) -> Iterator[tuple[Level, int | None]]:
    """Yield the levels above the leaves, each with the number of an earlier level that is the same, if any: the last.

    Args and errors: see :func:`join_all`; :class:`TooMany` also if no level is the same as an earlier one in time.
    """
    deadline = time.monotonic() + limits.seconds
    levels = [leaves.level]
    for _ in range(limits.height):
        level = join_all(levels[-1], meanings, transformations, limits, deadline=deadline)
        same = next((number for number, earlier in enumerate(levels) if level.same_as(earlier)), None)
        levels.append(level)
        yield level, same
        if same is not None:
            return
    raise TooMany(f"new values at {limits.height} levels")
