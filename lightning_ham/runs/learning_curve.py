"""The learning curve of a run: validation errors by updates and lengths, read from the logged metrics."""

from __future__ import annotations

import csv
import dataclasses
import logging
import os
import re
from pathlib import Path

from lightning_ham.evaluation.words import percent
from lightning_ham.foreign import shown
from lightning_ham.pictures.curve import CurvePoint, curve_picture
from lightning_ham.pictures.formats import Picture

_LOG = logging.getLogger("lightning_ham")
_COUNTS = {"train/episodes": "episodes", "train/seconds": "seconds", "curriculum/capacity": "capacity"}


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """The learning curve of a run; a notebook shows it as a picture."""

    run_dir: Path
    """The run folder."""
    points: list[CurvePoint]
    """The validations so far, at least one."""

    def draw(self) -> Picture:
        """Return the picture: errors against updates, a line for each validation set."""
        return curve_picture(self.points, str(self.run_dir), repr(self))

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the picture to a file, as SVG, PNG or PDF by the end of its name."""
        self.draw().save(file)

    def __repr__(self) -> str:
        last = self.points[-1]
        errors = ", ".join(f"{percent(error)} at lengths {lengths}" for lengths, error in last["errors"].items())
        errors = errors.replace("lengths current", f"up to {last['capacity']} leaves")
        return (
            f"<LearningCurve of {self.run_dir}: {len(self.points):,} validations in {last['update']:,} updates; wrong "
            f"sequences at last: {errors}>"
        )

    def _repr_svg_(self) -> str:
        return self.draw()._repr_svg_()


def learning_curve(run_dir: str | os.PathLike[str]) -> LearningCurve:
    """Return the learning curve of a run, whether it has ended or not.

    Raises:
        FileNotFoundError: If the folder has no metrics of a validation.
    """
    folder = Path(run_dir)
    points = read_curve(folder)
    if not points:
        raise FileNotFoundError(
            f"Expected a run folder with a validation in its metrics, but {shown(folder)} has none: give the folder "
            "that a training names in its first line, once its first epoch has ended."
        )
    return LearningCurve(folder, points)


def read_curve(run_dir: Path) -> list[CurvePoint]:
    """Return a point for every validation logged in ``metrics/``, over all parts of a resumed run.

    If an epoch was trained twice, because the run was killed before saving it, the last time counts. Parts with a
    damaged file are left out, with a warning.
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
    """Return the points of one part of a run, by epoch."""
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
    """Return the first point with an error of at most ``error`` at ``lengths``; None if there is none."""
    return next((point for point in curve if point["errors"].get(lengths, 1.0) <= error), None)
