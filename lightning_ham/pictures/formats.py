"""Formats of pictures: SVG, PNG or PDF, by the end of the file's name; files are reproducible."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.foreign import closest_to
from lightning_ham.output_files import is_stream
from lightning_ham.pictures.attention import Picture
from lightning_ham.pictures.png import png

FORMATS = (".svg", ".png", ".pdf")
"""Ends of file names that select a format."""

MAX_AREA = 40_000_000.0
"""Largest area of a picture as PNG or PDF, in pixels: few programs open larger ones."""

_FAMILIES = ["DejaVu Sans", "Verdana", "sans-serif"]
"""Fonts in SVG: few, as each text names all. Verdana's letters are as wide as DejaVu Sans'."""


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
        picture.figure.savefig(drawn, format="svg", metadata=metadata, facecolor="none")
    return drawn.getvalue()
