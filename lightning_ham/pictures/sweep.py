"""The pictures of a sweep: its history, and how much each key matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from lightning_ham.pictures.png import png


class Outcome(NamedTuple):
    """The value of a trial: below 0 if it solved the task, else doublings left plus the share of wrong sequences."""

    number: int
    value: float
    is_pruned: bool


def draw_history(outcomes: Sequence[Outcome], capacity: int, name: str) -> bytes:
    """Draw the value of every trial, and the best so far, as a PNG file; a band for each level of the curriculum.

    Args:
        outcomes: The trials, by number.
        capacity: Leaves at the end of the curriculum.
        name: Name of the sweep.
    """
    from matplotlib.figure import Figure  # takes a second, so only when drawing
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for is_pruned, marker, colour, label in ((False, "o", "#0072b2", "finished"), (True, "x", "#d55e00", "pruned")):
        shown = [(outcome.number, outcome.value) for outcome in outcomes if outcome.is_pruned == is_pruned]
        if shown:
            numbers, values = zip(*shown, strict=True)
            axes.scatter(numbers, values, s=24, zorder=3, marker=marker, color=colour, label=label)
    finished = [(outcome.number, outcome.value) for outcome in outcomes if not outcome.is_pruned]
    if finished:
        numbers, values = zip(*finished, strict=True)
        numbers, values = (*numbers, outcomes[-1].number), (*values, values[-1])  # to the end of the picture
        axes.step(numbers, list(accumulate(values, min)), where="post", color="0.5", linewidth=1.2, label="best so far")
    highest = math.ceil(max(1.0, *(outcome.value for outcome in outcomes)))
    for level in range(-1, highest, 2):
        axes.axhspan(level, level + 1, color="0.96", zorder=0)
    leaves = [round(capacity / 2**level) for level in range(highest)]
    labels = ["solved", *(f"{count} {'leaf' if count == 1 else 'leaves'}" for count in leaves)]
    axes.set_yticks([level + 0.5 for level in range(-1, highest)], labels)
    axes.set_ylim(-1.1, highest + 0.1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(axis="y", length=0)
    axes.set(title=f"Sweep {name}", xlabel="trial", ylabel="level, and share wrong within it")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return png(figure, [list(outcome) for outcome in outcomes])


def draw_importance(importances: Mapping[str, float], name: str) -> bytes:
    """Draw the share of each key in the differences between trials, as a PNG file.

    Args:
        importances: Shares by key, which add up to 1.
        name: Name of the sweep.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 0.9 + 0.35 * len(importances)), layout="constrained")
    axes = figure.add_subplot()
    keys = sorted(importances, key=lambda key: importances[key])
    shares = [100 * importances[key] for key in keys]
    bars = axes.barh(keys, shares, color="#0072b2")
    axes.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=3, fontsize=8)
    axes.set(title=f"What matters in the sweep {name}", xlabel="importance (PED-ANOVA)")
    axes.set_xlim(0, 110)
    axes.set_xticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    return png(figure, dict(importances))
