"""A page on which shapes and text are put by pixels; matplotlib makes SVG, PNG or PDF of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = tuple[float, float]
Anchor = Literal["left", "center", "right"]

PIXELS_PER_INCH = 100.0
_DOTS_PER_INCH = 120.0
"""Of PNG files."""
_POINTS = 72.0 / PIXELS_PER_INCH


class Pen(NamedTuple):
    """How an area is filled, and the line around it drawn. A colour that is not given is none."""

    fill: str = "none"
    stroke: str = "none"
    width: float = 1.0
    dashed: bool = False


class Ink(NamedTuple):
    """How text is written; its size in pixels."""

    size: float
    colour: str = "#1c2430"
    bold: bool = False
    anchor: Anchor = "center"


class Canvas:
    """Shapes are put above those that were put before; ``name`` is the id of an element in SVG.

    Args:
        width: In pixels, from the left.
        height: In pixels, from the top.
    """

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure  # a second to import, for those who draw only

        self.figure: Figure = Figure((width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=_DOTS_PER_INCH)
        self._axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()
        self._order = 0

    def _next(self) -> int:
        self._order += 1
        return self._order

    def text(self, x: float, y: float, text: str, ink: Ink, name: str | None = None) -> None:
        """Write text on the base line ``y``. What cannot be printed is replaced by a sign that says so."""
        self._axes.text(
            x,
            y,
            "".join(character if character.isprintable() else "�" for character in text),
            parse_math=False,
            color=ink.colour,
            size=ink.size * _POINTS,
            weight="bold" if ink.bold else "normal",
            horizontalalignment=ink.anchor,
            verticalalignment="baseline",
            zorder=self._next(),
            gid=name,
        )

    def box(self, corner: Point, width: float, height: float, radius: float, pen: Pen, name: str | None = None) -> None:
        """Draw a rectangle with round corners, the upper left one at ``corner``."""
        from matplotlib.patches import FancyBboxPatch

        patch = FancyBboxPatch(
            corner,
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={radius}",
            facecolor=pen.fill,
            edgecolor=pen.stroke,
            linewidth=pen.width * _POINTS,
            linestyle=(0, (3, 3)) if pen.dashed else "-",
            zorder=self._next(),
            gid=name,
            clip_on=False,
        )
        self._axes.add_patch(patch)

    def circles(self, centres: Sequence[Point], radius: float, fill: str, name: str | None = None) -> None:
        """Draw circles that look alike."""
        from matplotlib.collections import PatchCollection
        from matplotlib.patches import Circle

        circles = [Circle(centre, radius) for centre in centres]
        self._axes.add_collection(
            PatchCollection(circles, facecolor=fill, edgecolor="none", zorder=self._next(), gid=name, clip_on=False),
            autolim=False,
        )

    def lines(self, ends: Sequence[tuple[Point, Point]], pen: Pen, name: str | None = None) -> None:
        """Draw straight lines that look alike."""
        from matplotlib.collections import LineCollection

        self._axes.add_collection(
            LineCollection(
                ends,
                colors=pen.stroke,
                linewidths=pen.width * _POINTS,
                capstyle="butt",
                zorder=self._next(),
                gid=name,
                clip_on=False,
            ),
            autolim=False,
        )
