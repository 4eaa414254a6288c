"""What a picture can be: SVG, PNG or PDF, by the end of its file's name; each file the same every time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.foreign import closest_to
from lightning_ham.output_files import is_stream
from lightning_ham.pictures.attention import Picture
from lightning_ham.pictures.png import png

FORMATS = (".svg", ".png", ".pdf")
"""What a picture can be, by the end of its file's name."""

MAX_AREA = 40_000_000.0
"""Of a picture as PNG or PDF, in pixels: what is larger, few programs open."""

_FAMILIES = ["DejaVu Sans", "Verdana", "sans-serif"]
"""Of text in SVG: few, as each text names all. Verdana's letters are as wide as those of DejaVu Sans."""


def format_of(output: str) -> str:
    """Return which of the formats is meant by where the picture goes; what has no name gets SVG."""
    ending = Path(output).suffix.lower()
    if ending in FORMATS:
        return ending
    if is_stream(output):
        return ".svg"
    closest = closest_to(ending, FORMATS)
    hint = f"; did you mean {closest}?" if closest else "."
    raise ValueError(f"Expected a file that ends in {listed(FORMATS)}, but got {output}{hint}")


def listed(words: Sequence[str]) -> str:
    """Return words with commas between them, and "or" before the last."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def rendered(picture: Picture, form: str) -> str | bytes:
    """Return a picture as one of the formats: SVG is text, whose words are text too.

    Raises:
        ValueError: If it is too large for any but SVG.
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
    from matplotlib import rc_context  # a second to import, for those who draw only

    drawn = io.StringIO()
    metadata = {"Title": picture.title, "Description": picture.description, "Date": None, "Creator": "lightning_ham"}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lightning_ham", "font.sans-serif": _FAMILIES}):
        picture.figure.savefig(drawn, format="svg", metadata=metadata, facecolor="none")
    return drawn.getvalue()
