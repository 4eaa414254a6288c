"""The search for a certificate, or for a sequence of operations that goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lightning_ham.certification.certificate import Certificate
from lightning_ham.certification.closure import (
    Limits,
    TooMany,
    find_leaves,
    levels_above,
    wrong_branches,
    wrong_outputs,
)
from lightning_ham.certification.counterexample import Histories, failing_instance
from lightning_ham.certification.meanings import POP, PUSH, meanings_of
from lightning_ham.certification.transformations import Transformations
from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.tasks.structures import Operations, Structure

Array = np.ndarray[Any, Any]


class Certifiable(Protocol):
    """A model whose weights have a hash, such as :class:`lightning_ham.hub.TrainedModel`."""

    task_name: str
    task: Any
    controller_name: str
    controller: Any

    def solve(self, instances: Iterable[Any]) -> list[Any]:
        """Return the model's answers."""

    def weights_sha256(self) -> str:
        """Return the hash of its file of weights."""


@dataclass(frozen=True)
class Refusal:
    """Why a model has no certificate."""

    reason: str
    """What was found, in a sentence."""
    instance: Operations | None = None
    """Operations that the model gets wrong, if any were found."""
    num_wrong: int = 0
    """How many values go wrong at the level where the search ended."""
    height: int = 0
    """The level's height."""

    def __str__(self) -> str:
        """Return the reason."""
        return self.reason


def certify(model: Certifiable, limits: Limits | None = None) -> Certificate | Refusal:
    """Prove a model of a data structure right for every capacity, or tell why not.

    Args:
        model: Its controller is ``raw_ham``, and its memory has a grid.
        limits: When to give up.

    Raises:
        ValueError: If the model is no such model.
    """
    task, controller = structure_of(model)
    limits = limits or Limits()
    started = time.monotonic()
    meanings, transformations = meanings_of(task), Transformations(controller)
    try:
        leaves = find_leaves(task, meanings, transformations, limits)
    except TooMany as error:
        return Refusal(f"not certified: {error}. {_TOO_MANY}")
    levels = [leaves.level]
    histories = Histories(task, meanings, leaves, levels)
    wrong, output_margin = wrong_outputs(leaves, transformations)
    if len(wrong):
        cheapest = wrong[np.argmin(leaves.level.cost[wrong])]
        return _refused(model, histories, 0, int(cheapest), POP, len(wrong), "a leaf puts out a wrong value")
    if leaves.level.slack <= 0:
        return Refusal(_margin("the values of leaves", leaves.level.slack))
    rounding_margin, branch_margin, pairs = leaves.level.slack, np.inf, 0
    try:
        for level, same in levels_above(leaves, meanings, transformations, limits):
            levels.append(level)
            height = len(levels) - 1
            margins = wrong_branches(level, leaves.queries, meanings, transformations)
            for kind, of_kind in zip((POP, PUSH), margins, strict=True):
                wrong = np.flatnonzero(of_kind <= 0)
                if len(wrong):
                    cheapest = wrong[np.argmin(level.cost[wrong])]
                    what = f"{'a push' if kind == PUSH else 'a pop'} takes the wrong branch, or one without a margin,"
                    return _refused(model, histories, height, int(cheapest), kind, len(wrong), what)
                branch_margin = min(branch_margin, float(of_kind.min()))
            if level.slack <= 0:
                return Refusal(_margin(f"JOIN at height {height}", level.slack), height=height)
            rounding_margin, pairs = min(rounding_margin, level.slack), pairs + level.pairs
            repeats = same
    except TooMany as error:
        return Refusal(f"not certified: {error}, at height {len(levels)}. {_TOO_MANY}", height=len(levels))
    assert repeats is not None  # else there were too many
    return Certificate(
        task=task.name,
        weights_sha256=model.weights_sha256(),
        grid=transformations.grid,
        leaves=np.column_stack((leaves.level.values, leaves.level.meanings, leaves.pushes)).astype(np.int16),
        levels=tuple(level.key() for level in levels[1:]),
        repeats=repeats,
        pairs=pairs,
        rounding_margin=float(rounding_margin),
        branch_margin=float(branch_margin),
        output_margin=output_margin,
        seconds=round(time.monotonic() - started, 1),
    )


_TOO_MANY = "A coarser grid, or `fit` with a `certify` section, makes them fewer."


def structure_of(model: Certifiable) -> tuple[Structure, RawHAM]:
    """Return a model's task and controller.

    Raises:
        ValueError: If the model is not of a data structure with the controller ``raw_ham``.
    """
    if not isinstance(model.task, Structure) or not isinstance(model.controller, RawHAM):
        raise ValueError(
            "Expected a model of a data structure (stack, queue or priority_queue) with the controller 'raw_ham', but "
            f"got one of {model.task_name!r} with {model.controller_name!r}. Other models cannot be certified."
        )
    return model.task, model.controller


def _margin(what: str, slack: float) -> str:
    return (
        f"not certified: {what} come as close to a boundary of rounding as float32 may err ({-slack:.1g} too close): "
        "another machine could round to another value."
    )


def _refused(
    model: Certifiable, histories: Histories, height: int, row: int, kind: int, num_wrong: int, what: str
) -> Refusal:
    """Return a refusal with operations that go wrong, if the model gets any of the likely ones wrong."""
    instance = failing_instance(model, histories.candidates(height, row, kind))
    where = f"at a node of height {height}" if height else "after a sequence of writes"
    ending = "no wrong answer was found: the model attends elsewhere than a certificate asks for"
    if instance is not None:
        ending = f"{len(instance):,} operations that go wrong were found"
    return Refusal(f"not certified: {what} {where} ({num_wrong:,} such values); {ending}.", instance, num_wrong, height)
