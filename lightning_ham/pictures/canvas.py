"""A page for shapes and text at pixel positions; matplotlib renders it as SVG, PNG or PDF."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.path import Path
    from matplotlib.text import Text

Point = tuple[float, float]
Anchor = Literal["left", "center", "right"]

PIXELS_PER_INCH = 100.0
_DOTS_PER_INCH = 120.0
"""Resolution of PNG files."""
_POINTS = 72.0 / PIXELS_PER_INCH


class Pen(NamedTuple):
    """The fill of an area and the line around it; no colours by default."""

    fill: str = "none"
    stroke: str = "none"
    width: float = 1.0
    dashed: bool = False


class Ink(NamedTuple):
    """The style of text, with its size in pixels."""

    size: float
    colour: str = "#1c2430"
    bold: bool = False
    anchor: Anchor = "center"


class _Shape(NamedTuple):
    """An outline at a place."""

    path: Path
    pen: Pen
    name: str | None
    places: Path | None = None
    """Points of repeated outlines, each drawn below and to the right of a point."""


class _Words(NamedTuple):
    """A line of text at a place."""

    place: Point
    text: str
    ink: Ink
    name: str | None


class Canvas:
    """A page; later shapes cover earlier ones, and ``name`` is the id of an element in SVG.

    Consecutive shapes with the same name form one element.

    Args:
        width: In pixels; x counts from the left.
        height: In pixels; y counts from the top.
    """

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.artist import Artist  # takes a second, so only when drawing
        from matplotlib.figure import Figure

        figure = Figure((width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=_DOTS_PER_INCH)
        content: list[_Shape | _Words] = []

        class Page(Artist):
            """The whole content as one artist: matplotlib is slow with many."""

            def draw(self, renderer: Any) -> None:
                _draw(content, figure, renderer)

        figure.add_artist(Page())
        self.figure: Figure = figure
        self._content = content

    def text(self, x: float, y: float, text: str, ink: Ink, name: str | None = None) -> None:
        """Write text on the base line ``y``; replace unprintable characters by a sign."""
        printable = "".join(character if character.isprintable() else "�" for character in text)
        self._content.append(_Words((x, y), printable, ink, name))

    def box(self, corner: Point, width: float, height: float, radius: float, pen: Pen, name: str | None = None) -> None:
        """Draw a rectangle with round corners, the upper left one at ``corner``."""
        from matplotlib.patches import BoxStyle

        outline = BoxStyle.Round(pad=0, rounding_size=radius)(*corner, width, height, 1)
        self._content.append(_Shape(outline, pen, name))

    def circle(self, centre: Point, radius: float, fill: str, name: str | None = None) -> None:
        """Draw a circle."""
        from matplotlib.path import Path

        self._content.append(_Shape(Path.circle(centre, radius), Pen(fill), name))

    def circles(self, centres: Sequence[Point], radius: float, fill: str, name: str | None = None) -> None:
        """Draw identical circles; SVG holds one outline and its places."""
        from matplotlib.path import Path

        outline = Path.circle((radius, -radius), radius)  # y upwards, as in matplotlib
        corners = Path([(x - radius, y - radius) for x, y in centres])
        self._content.append(_Shape(outline, Pen(fill), name, corners))

    def lines(self, ends: Sequence[tuple[Point, Point]], pen: Pen, name: str | None = None) -> None:
        """Draw straight lines of one style, as one outline."""
        from matplotlib.path import Path

        outline = Path([point for line in ends for point in line], [Path.MOVETO, Path.LINETO] * len(ends))
        outline.should_simplify = False
        self._content.append(_Shape(outline, pen, name))


def _draw(content: Sequence[_Shape | _Words], figure: Figure, renderer: Any) -> None:
    """Draw the content of a page; equal styles share a pen, equal words their layout."""
    from matplotlib.transforms import Affine2D

    dots = figure.dpi / PIXELS_PER_INCH
    zoom = Affine2D().scale(dots)
    to_dots = Affine2D().scale(dots, -dots).translate(0, figure.get_figheight() * figure.dpi)
    pens: dict[Pen, _LoadedPen] = {}
    words: dict[tuple[str, Ink], Text] = {}
    for name, members in groupby(content, key=lambda member: member.name):
        if name is not None:
            renderer.open_group("named", gid=name)
        for member in members:
            if isinstance(member, _Words):
                key = member.text, member.ink
                if key not in words:
                    words[key] = _set(*key)
                    words[key].set_figure(figure)
                    words[key].set_transform(to_dots)
                words[key].set_position(member.place)
                words[key].draw(renderer)
                continue
            if member.pen not in pens:
                pens[member.pen] = _load(member.pen, renderer)
            pen, fill = pens[member.pen]
            if member.places is None:
                renderer.draw_path(pen, member.path, to_dots, fill)
            else:
                renderer.draw_markers(pen, member.path, zoom, member.places, to_dots, fill)
        if name is not None:
            renderer.close_group("named")
    for pen, _ in pens.values():
        pen.restore()


class _LoadedPen(NamedTuple):
    """A pen in matplotlib's form."""

    line: Any
    fill: tuple[float, float, float, float] | None


def _load(pen: Pen, renderer: Any) -> _LoadedPen:
    from matplotlib.colors import to_rgba

    line = renderer.new_gc()
    width = 0.0 if pen.stroke == "none" else pen.width * _POINTS
    line.set_linewidth(width)
    line.set_foreground(to_rgba(pen.stroke), isRGBA=True)
    line.set_joinstyle("miter")
    if pen.dashed:
        line.set_dashes(0, [3 * width, 3 * width])
    return _LoadedPen(line, None if pen.fill == "none" else to_rgba(pen.fill))


def _set(text: str, ink: Ink) -> Text:
    """Return text without a place."""
    from matplotlib.text import Text

    return Text(
        text=text,
        parse_math=False,
        color=ink.colour,
        size=ink.size * _POINTS,
        weight="bold" if ink.bold else "normal",
        horizontalalignment=ink.anchor,
        verticalalignment="baseline",
    )
