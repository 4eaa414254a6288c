"""The file of a certificate: all values of nodes with their meanings, and what was measured."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ham.foreign import shown

Array = np.ndarray[Any, Any]

FORMAT = 1
MAX_BYTES = 1 << 28
"""Longest certificate that is read."""


@dataclass(frozen=True)
class Certificate:
    """A proof that a data structure is right for every capacity; ``docs/certificates.md`` says what it proves.

    Tables are arrays of integers with one row per value: its numbers as multiples of the grid, its meaning, then where
    a push and a pop go (0 left, 1 right, -1 neither).
    """

    task: str
    """Name of the data structure."""
    weights_sha256: str
    """Hash of the file of weights for which it holds."""
    grid: float
    """What values are multiples of."""
    leaves: Array
    """Values of leaves; in place of the branches, the last push (-1 where the leaf is not taken)."""
    levels: tuple[Array, ...]
    """Values of the nodes of each height, from 1 on."""
    repeats: int
    """Height of the level whose rows are those of the highest one: from there on, all heights repeat."""
    pairs: int
    """How many pairs of values were joined."""
    rounding_margin: float
    """Least distance of a number from a boundary of rounding, less the bound of float32's errors."""
    branch_margin: float
    """Least distance of a branch's logit from 0, less the bound."""
    output_margin: float
    """Least distance of an output bit's logit from 0, less the bound."""
    seconds: float
    """How long it took to make."""

    @property
    def num_values(self) -> int:
        """Number of different values of leaves and nodes."""
        size = self.leaves.shape[1] - 2
        return len(np.unique(np.concatenate([table[:, :size] for table in (self.leaves, *self.levels)]), axis=0))

    @property
    def margin(self) -> float:
        """The least of all margins."""
        return min(self.rounding_margin, self.branch_margin, self.output_margin)

    def __str__(self) -> str:
        """Return it in a line."""
        return (
            f"certified for every capacity: {self.num_values:,} values, {self.pairs:,} pairs, least margin "
            f"{self.margin:.2g}"
        )

    def to_bytes(self) -> bytes:
        """Return the file's contents, JSON."""
        data = asdict(self) | {"leaves": _packed(self.leaves), "levels": [_packed(level) for level in self.levels]}
        return (json.dumps({"format": FORMAT} | data, indent=1) + "\n").encode()


def read_certificate(content: bytes, path: Path) -> Certificate:
    """Return the certificate in a file's contents.

    Raises:
        ValueError: If they are no certificate of this format.
    """
    try:
        data = json.loads(content)
        if data.pop("format") != FORMAT:
            raise ValueError("another format")
        tables = {"leaves": _unpacked(data["leaves"]), "levels": tuple(_unpacked(level) for level in data["levels"])}
        certificate = Certificate(**(data | tables))
        _check(certificate)
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(
            f"{shown(path)}: Expected a certificate, but got: {shown(error)}. Make it anew with "
            "`python -m lightning_ham.certify`."
        ) from error
    return certificate


def _check(certificate: Certificate) -> None:
    """Raise a ValueError unless all fields have their types."""
    texts, whole = (certificate.task, certificate.weights_sha256), (certificate.repeats, certificate.pairs)
    margins = (certificate.rounding_margin, certificate.branch_margin, certificate.output_margin)
    numbers = (certificate.grid, *margins)
    if not all(type(text) is str for text in texts) or not all(type(number) is int for number in whole):
        raise ValueError("a field of the wrong type")
    if not all(type(number) in (int, float) and number > 0 for number in numbers):
        raise ValueError("a grid or a margin that is not above 0")
    if not (type(certificate.seconds) in (int, float) and certificate.seconds >= 0):
        raise ValueError("a time below 0")
    if {table.shape[1] for table in certificate.levels} != {certificate.leaves.shape[1] + 1}:
        raise ValueError("tables of different widths")


def _packed(table: Array) -> dict[str, Any]:
    data = zlib.compress(np.ascontiguousarray(table, "<i2").tobytes(), 9)
    return {"shape": list(table.shape), "int16, deflated": base64.b64encode(data).decode()}


def _unpacked(data: dict[str, Any]) -> Array:
    rows, columns = data["shape"]
    most = MAX_BYTES
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(base64.b64decode(data["int16, deflated"]), most)
    return np.frombuffer(content, "<i2").reshape(rows, columns)
