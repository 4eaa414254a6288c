"""What a picture can be: SVG, PNG or PDF, by the end of its file's name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from lightning_ham.output_files import is_stream
from lightning_ham.pictures.card import svg_to_pdf, svg_to_png

FORMATS = (".svg", ".png", ".pdf")
"""What a picture can be, by the end of its file's name."""

MAX_AREA = 40_000_000.0
"""Of a picture as PNG or PDF, in pixels of its SVG: what is larger, few programs open."""


def format_of(output: str) -> str:
    """Return which of the formats is meant by where the picture goes; what has no name gets SVG."""
    ending = Path(output).suffix.lower()
    if ending in FORMATS:
        return ending
    if is_stream(output):
        return ".svg"
    closest = difflib.get_close_matches(ending, FORMATS, n=1)
    hint = f"; did you mean {closest[0]}?" if closest else "."
    raise ValueError(f"Expected a file that ends in {listed(FORMATS)}, but got {output}{hint}")


def listed(words: Sequence[str]) -> str:
    """Return words with commas between them, and "or" before the last."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def converted(picture: str, form: str) -> bytes:
    """Return a picture as PNG or PDF."""
    root = ElementTree.fromstring(picture)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    if width * height > MAX_AREA:
        raise ValueError(
            f"Expected a picture of at most {MAX_AREA:,.0f} pixels, but got {width:,.0f} x {height:,.0f}; ask "
            "for fewer --steps, or for .svg."
        )
    return svg_to_png(picture, picture) if form == ".png" else svg_to_pdf(picture)
