"""How a training of a sweep is judged: whether it solves the task and how soon, else how far it came.

The value is lowest for the best:

- Of a training that met the recipe's bar (``stop.errors``, for ``stop.patience`` validations in a row) it is below 0,
  ``-1 / (1 + episodes / 1,000,000)``: the fewer training episodes, the better.
- Of any other it is the lowest ``val/score``: the doublings of the curriculum that were left, plus the mean share of
  wrong sequences at the level reached. So the level decides first, and the error second.

Of several seeds, the median training is judged (the worse of the two in the middle).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

from lightning_ham.pictures.curve import CurvePoint

_EPISODES = 1_000_000


class Goal(NamedTuple):
    """What all trainings of a sweep aim at."""

    capacity: int
    """Leaves at the end of the curriculum."""
    bar: Mapping[str, float]
    """Highest accepted shares of wrong sequences, by lengths; empty if the recipe has none."""
    patience: int
    """Consecutive validations that must meet the bar."""


class Judged(TypedDict):
    """One training, as far as it went."""

    seed: int
    value: float
    solved: bool
    """Whether it met the bar."""
    capacity: int
    """Leaves at its best validation."""
    error: float
    """Mean share of wrong sequences at its best validation."""
    validations: int
    updates: int
    episodes: int
    seconds: float


def score(point: CurvePoint, goal: Goal) -> float:
    """Return the validation score of a point, as :class:`~lightning_ham.training.HAMModule` logs it.

    >>> goal = Goal(32, {}, 1)
    >>> score({"update": 1, "episodes": 1, "seconds": 1, "capacity": 8, "errors": {"current": 0.25}}, goal)
    2.25
    """
    return math.log2(goal.capacity / point["capacity"]) + statistics.fmean(point["errors"].values())


def validated(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Return the validations whose epoch is complete, so that their capacity is known."""
    return [point for point in curve if point["capacity"] > 0]


def judge(curve: Sequence[CurvePoint], goal: Goal, seed: int, *, has_ended: bool = True) -> Judged:
    """Judge a training by its learning curve; one without a validation is as bad as can be.

    Only one that has ended counts as solved.
    """
    points = validated(curve)
    if not points:
        worst = math.log2(goal.capacity) + 1
        return Judged(
            seed=seed,
            value=worst,
            solved=False,
            capacity=1,
            error=1.0,
            validations=0,
            updates=0,
            episodes=0,
            seconds=0.0,
        )
    best, last = min(points, key=lambda point: score(point, goal)), points[-1]
    is_met = len(points) >= goal.patience and all(_meets(point, goal.bar) for point in points[-goal.patience :])
    solved = has_ended and is_met
    return Judged(
        seed=seed,
        value=-1 / (1 + last["episodes"] / _EPISODES) if solved else score(best, goal),
        solved=solved,
        capacity=best["capacity"],
        error=statistics.fmean(best["errors"].values()),
        validations=len(points),
        updates=last["update"],
        episodes=last["episodes"],
        seconds=last["seconds"],
    )


def _meets(point: CurvePoint, bar: Mapping[str, float]) -> bool:
    """Return whether a validation met the bar; without a bar, none does."""
    return bool(bar) and all(point["errors"].get(lengths, 1.0) <= error for lengths, error in bar.items())


def median(trainings: Sequence[Judged]) -> Judged:
    """Return the training of the median seed, the worse of the two in the middle."""
    return sorted(trainings, key=lambda judged: judged["value"])[len(trainings) // 2]


def in_words(judged: Judged, goal: Goal) -> str:
    """Describe how a training is judged.

    >>> judged = judge([], Goal(32, {}, 1), seed=1)
    >>> in_words(judged, Goal(32, {}, 1)), in_words({**judged, "solved": True, "episodes": 51200}, Goal(32, {}, 1))
    ('nothing validated', 'solved after 51,200 episodes')
    """
    if judged["solved"]:
        return f"solved after {judged['episodes']:,} episodes"
    if not judged["validations"]:
        return "nothing validated"
    return f"{judged['capacity']} of {goal.capacity} leaves, {100 * judged['error']:.3g} % wrong"
