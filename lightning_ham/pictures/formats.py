"""Formats of pictures: SVG, PNG or PDF, by the end of the file's name; files are reproducible."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lightning_ham.foreign import closest_to
from lightning_ham.output_files import check_place, is_stream, write
from lightning_ham.pictures.png import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png", ".pdf")
"""Ends of file names that select a format."""

MAX_AREA = 40_000_000.0
"""Largest area of a picture as PNG or PDF, in pixels: few programs open larger ones."""

_FAMILIES = ["DejaVu Sans", "Verdana", "sans-serif"]
"""Fonts in SVG: few, as each text names all. Verdana's letters are as wide as DejaVu Sans'."""


class Picture(NamedTuple):
    """A picture; a notebook shows it."""

    figure: Figure
    """The drawing."""
    width: float
    """Width in pixels, like the height."""
    height: float
    title: str
    """Its heading."""
    description: str
    """Text with all values in the picture."""
    has_page: bool = True
    """Whether the drawing has its own background, on a transparent figure in SVG."""

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the picture to a file, as SVG, PNG or PDF by the end of its name.

        Raises:
            ValueError: If the name ends otherwise, its folder is missing, or the picture is too large for PNG or PDF.
        """
        output = os.fspath(file)
        form = format_of(output)
        check_place(output)
        write(output, rendered(self, form))

    def __repr__(self) -> str:
        return f"<Picture: {self.title}, {self.width:.0f} x {self.height:.0f} pixels>"

    def _repr_svg_(self) -> str:
        return to_svg(self)


def format_of(output: str) -> str:
    """Return the format for an output file; SVG for standard output and the like."""
    ending = Path(output).suffix.lower()
    if ending in FORMATS:
        return ending
    if is_stream(output):
        return ".svg"
    closest = closest_to(ending, FORMATS)
    hint = f"; did you mean {closest}?" if closest else "."
    raise ValueError(f"Expected a file that ends in {listed(FORMATS)}, but got {output}{hint}")


def listed(words: Sequence[str]) -> str:
    """Join words by commas, and the last one by "or"."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def rendered(picture: Picture, form: str) -> str | bytes:
    """Return a picture in one of the formats; words in SVG stay text.

    Raises:
        ValueError: If it is too large for PNG or PDF.
    """
    if form == ".svg":
        return to_svg(picture)
    if picture.width * picture.height > MAX_AREA:
        raise ValueError(
            f"Expected a picture of at most {MAX_AREA:,.0f} pixels, but got {picture.width:,.0f} x "
            f"{picture.height:,.0f}; ask for fewer --steps, or for .svg."
        )
    if form == ".png":
        return png(picture.figure, picture.description)
    drawn = io.BytesIO()
    picture.figure.savefig(drawn, format="pdf", metadata={"Title": picture.title, "CreationDate": None})
    return drawn.getvalue()


def to_svg(picture: Picture) -> str:
    """Return a picture as the text of an SVG file."""
    from matplotlib import rc_context  # takes a second, so only when drawing

    drawn = io.StringIO()
    metadata = {"Title": picture.title, "Description": picture.description, "Date": None, "Creator": "lightning_ham"}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lightning_ham", "font.sans-serif": _FAMILIES}):
        background = "none" if picture.has_page else "auto"
        picture.figure.savefig(drawn, format="svg", metadata=metadata, facecolor=background)
    return drawn.getvalue()
