"""Small PNG files that carry a digest of their data."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn_from(data: object) -> str:
    """Return the digest of ``data`` that a picture carries, to detect stale pictures."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def png(figure: Figure, data: object) -> bytes:
    """Return a figure as a small PNG file with the digest of its data in ``Description``."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    drawn, file, info = io.BytesIO(), io.BytesIO(), PngInfo()
    figure.savefig(drawn, format="png")
    info.add_text("Description", drawn_from(data))
    with Image.open(drawn) as image:  # a palette makes it a third of the size
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, "png", optimize=True, pnginfo=info)
    return file.getvalue()
