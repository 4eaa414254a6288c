"""The picture of how a model learned: errors against updates, by length."""

from __future__ import annotations

from itertools import pairwise

from lightning_ham.hub.card import CurvePoint
from lightning_ham.pictures.png import png


def draw_curve(curve: list[CurvePoint], title: str) -> bytes:
    """Draw validation errors against updates, a line for each validation set, as a PNG file.

    Where the curriculum doubled the leaves is marked, with their new number.
    """
    from matplotlib.figure import Figure  # a second to import, for those who draw only

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(name for point in curve for name in point["errors"]))
    for name in names:
        measured = [(point["update"], 100 * point["errors"][name]) for point in curve if name in point["errors"]]
        label = "lengths of the curriculum" if name == "current" else f"lengths {name}"
        style = {"color": "0.6", "zorder": 1.5} if name == "current" else {"marker": "."}
        axes.plot(*zip(*measured, strict=True), label=label, linewidth=1.2, markersize=4, **style)
    for before, after in pairwise(curve):
        if after["capacity"] > before["capacity"]:
            axes.axvline(before["update"], color="0.8", linewidth=0.8, zorder=1)
            axes.annotate(
                f"{after['capacity']} leaves",
                (before["update"], 1),
                xycoords=("data", "axes fraction"),
                xytext=(2, -3),
                textcoords="offset points",
                rotation=90,
                ha="left",
                va="top",
                fontsize=7,
                color="0.4",
            )
    # Logarithmic where there are errors, down to one in a thousand, and yet with a place for none.
    axes.set_yscale("symlog", linthresh=0.1, linscale=0.5)
    axes.set_ylim(0, 110)
    axes.set_yticks([0, 0.1, 1, 10, 100], ["0 %", "0.1 %", "1 %", "10 %", "100 %"])
    axes.set_xlim(left=0)
    axes.set(title=title, xlabel="updates", ylabel="wrong sequences in validation")
    axes.grid(axis="y", color="0.92")
    axes.legend(loc="lower left", fontsize=8)
    return png(figure, curve)
