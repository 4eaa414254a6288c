"""A page on which shapes and text are put by pixels; matplotlib makes SVG, PNG or PDF of it."""

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


class _Shape(NamedTuple):
    """An outline at a place."""

    path: Path
    pen: Pen
    name: str | None
    places: Path | None = None
    """Where the outline is repeated, if it is, below and to the right of each point."""


class _Words(NamedTuple):
    """A line of text at a place."""

    place: Point
    text: str
    ink: Ink
    name: str | None


class Canvas:
    """Shapes are put above those that were put before; ``name`` is the id of an element in SVG.

    What is put one after another with the same name makes one element.

    Args:
        width: In pixels, from the left.
        height: In pixels, from the top.
    """

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.artist import Artist  # a second to import, for those who draw only
        from matplotlib.figure import Figure

        figure = Figure((width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=_DOTS_PER_INCH)
        content: list[_Shape | _Words] = []

        class Page(Artist):
            """All that is on the page: one artist, as matplotlib takes long over many."""

            def draw(self, renderer: Any) -> None:
                _draw(content, figure, renderer)

        figure.add_artist(Page())
        self.figure: Figure = figure
        self._content = content

    def text(self, x: float, y: float, text: str, ink: Ink, name: str | None = None) -> None:
        """Write text on the base line ``y``. What cannot be printed is replaced by a sign that says so."""
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
        """Draw circles that look alike; SVG has the outline of one, and where it is repeated."""
        from matplotlib.path import Path

        outline = Path.circle((radius, -radius), radius)  # upwards, as matplotlib counts
        corners = Path([(x - radius, y - radius) for x, y in centres])
        self._content.append(_Shape(outline, Pen(fill), name, corners))

    def lines(self, ends: Sequence[tuple[Point, Point]], pen: Pen, name: str | None = None) -> None:
        """Draw straight lines that look alike, as one outline."""
        from matplotlib.path import Path

        outline = Path([point for line in ends for point in line], [Path.MOVETO, Path.LINETO] * len(ends))
        outline.should_simplify = False
        self._content.append(_Shape(outline, pen, name))


def _draw(content: Sequence[_Shape | _Words], figure: Figure, renderer: Any) -> None:
    """Draw what is on a page; what looks alike shares its pen, and equal words their layout."""
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
    """A pen as matplotlib takes it."""

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
    """Return text of which only the place is open."""
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
