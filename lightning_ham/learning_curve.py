"""The learning curve of a run: validation errors against updates, by length, read from what the run logged."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_ham.hub.card import CurvePoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOG = logging.getLogger("lightning_ham")
_COUNTS = {"train/episodes": "episodes", "train/seconds": "seconds", "curriculum/capacity": "capacity"}


def read_curve(run_dir: Path) -> list[CurvePoint]:
    """Return a point for every validation that a run logged to ``metrics/``, over all its parts if it was resumed.

    An epoch that was trained again, because the run was killed before it was saved, counts as it was the last time. A
    part whose file is damaged is left out, with a warning.
    """
    points: dict[int, CurvePoint] = {}
    parts = run_dir.glob("metrics/version_*/metrics.csv")
    numbered = {int(name[1]): part for part in parts if (name := re.fullmatch(r"version_([0-9]+)", part.parent.name))}
    for _, part in sorted(numbered.items()):
        try:
            points |= _read_part(part)
        except (OSError, csv.Error, LookupError, ValueError):
            _LOG.warning("%s is damaged; the learning curve is drawn without it.", part)
    return [points[epoch] for epoch in sorted(points) if points[epoch]["errors"]]


def _read_part(part: Path) -> dict[int, CurvePoint]:
    """Return what a part of a run logged, by epoch."""
    epochs: dict[int, dict[str, str]] = {}
    with part.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values = {name: value for name, value in row.items() if name and value}
            if "epoch" in values:
                epochs.setdefault(int(values["epoch"]), {}).update(values)
    return {epoch: _point(values) for epoch, values in epochs.items()}


def _point(values: dict[str, str]) -> CurvePoint:
    errors = {
        name.removeprefix("val/").removesuffix("/sequence_error"): round(float(value), 6)
        for name, value in values.items()
        if name.startswith("val/") and name.endswith("/sequence_error")
    }
    counts = {key: round(float(values.get(name, 0))) for name, key in _COUNTS.items()}
    return {
        "update": int(values["step"]) + 1,  # steps are counted from 0
        "episodes": counts["episodes"],
        "seconds": counts["seconds"],
        "capacity": counts["capacity"],
        "errors": errors,
    }


def first_at(curve: list[CurvePoint], lengths: str, error: float) -> CurvePoint | None:
    """Return the first point at which the error at ``lengths`` was at most ``error``, None if it never was."""
    return next((point for point in curve if point["errors"].get(lengths, 1.0) <= error), None)


def drawn_from(data: object) -> str:
    """Return the digest that a picture of ``data`` carries, so that a picture of other data is found out."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def png(figure: Figure, data: object) -> bytes:
    """Return a figure as a small PNG file that says what data it was drawn from, in its ``Description``."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    drawn, file, info = io.BytesIO(), io.BytesIO(), PngInfo()
    figure.savefig(drawn, format="png")
    info.add_text("Description", drawn_from(data))
    with Image.open(drawn) as image:  # with a palette it is a third of the size
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, "png", optimize=True, pnginfo=info)
    return file.getvalue()


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
