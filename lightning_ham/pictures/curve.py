"""The picture of a learning curve: errors against updates, by length."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, TypedDict

from lightning_ham.pictures.canvas import PIXELS_PER_INCH
from lightning_ham.pictures.formats import Picture
from lightning_ham.pictures.png import png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL_WIDTH = 10.0
"""Width in points of the label of a level, which runs upwards, with the space beside it."""


class CurvePoint(TypedDict):
    """The results of one validation during training."""

    update: int
    """Updates so far."""
    episodes: int
    """Training episodes so far; 0 if not logged."""
    seconds: int
    """Training time so far, with validation; 0 if not logged."""
    capacity: int
    """Leaves of the curriculum's current trees."""
    errors: dict[str, float]
    """Share of wrong sequences by validation set: ``current`` for the curriculum's capacity, others by lengths, such as
    ``1-32``."""


def draw_curve(curve: list[CurvePoint], title: str) -> bytes:
    """Draw validation errors against updates, a line for each validation set, as a PNG file.

    Marks show where the curriculum doubled the leaves, with their new number.
    """
    return png(curve_figure(curve, title), curve)


def curve_figure(curve: list[CurvePoint], title: str) -> Figure:
    """Return the figure of :func:`draw_curve`."""
    from matplotlib.figure import Figure  # takes a second, so only when drawing

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(name for point in curve for name in point["errors"]))
    for name in names:
        measured = [(point["update"], 100 * point["errors"][name]) for point in curve if name in point["errors"]]
        label = "lengths of the curriculum" if name == "current" else f"lengths {name}"
        style = {"color": "0.6", "zorder": 1.5} if name == "current" else {"marker": "."}
        axes.plot(*zip(*measured, strict=True), label=label, linewidth=1.2, markersize=4, **style)
    # Logarithmic down to one error in a thousand, and linear below, to show 0.
    axes.set_yscale("symlog", linthresh=0.1, linscale=0.5)
    axes.set_ylim(0, 110)
    axes.set_yticks([0, 0.1, 1, 10, 100], ["0 %", "0.1 %", "1 %", "10 %", "100 %"])
    axes.set_xlim(left=0)
    axes.set(title=title, xlabel="updates", ylabel="wrong sequences in validation")
    axes.grid(axis="y", color="0.92")
    axes.legend(loc="lower left", fontsize=8)
    _mark_levels(figure, axes, curve)
    return figure


def curve_picture(curve: list[CurvePoint], title: str, description: str) -> Picture:
    """Return the picture of :func:`draw_curve`, with its background."""
    figure = curve_figure(curve, title)
    width, height = figure.get_size_inches() * PIXELS_PER_INCH
    return Picture(figure, float(width), float(height), title, description, has_page=False)


def _mark_levels(figure: Figure, axes: Axes, curve: list[CurvePoint]) -> None:
    """Draw a line where the leaves were doubled, labelled with their new number."""
    levels = [(before["update"], after["capacity"]) for before, after in pairwise(curve) if _is_doubled(before, after)]
    figure.draw_without_rendering()  # computes the positions of the axes
    points = 72 / figure.dpi
    places = [float(axes.transData.transform((update, 0))[0]) * points for update, _ in levels]
    right = float(axes.bbox.x1) * points
    for (update, leaves), place, free in zip(levels, places, spread_out(places, _LABEL_WIDTH, right), strict=True):
        axes.axvline(update, color="0.8", linewidth=0.8, zorder=1)
        axes.annotate(
            f"{leaves} leaves",
            (update, 1),
            xycoords=("data", "axes fraction"),
            xytext=(free - place + 2, -3),
            textcoords="offset points",
            rotation=90,
            ha="left",
            va="top",
            fontsize=7,
            color="0.4",
        )


def _is_doubled(before: CurvePoint, after: CurvePoint) -> bool:
    return after["capacity"] > before["capacity"]


def spread_out(places: list[float], width: float, end: float) -> list[float]:
    """Return starts of labels of this width that do not overlap, each as close after its place as possible.

    Labels without room before ``end`` start earlier.

    >>> spread_out([0, 1, 50], 10, 100), spread_out([80, 90, 95], 10, 100)
    ([0, 10, 50], [70, 80, 90])
    """
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + width) if found else place)
    for back in range(1, len(found) + 1):
        found[-back] = min(found[-back], end - back * width)
    return found
