"""Comparison of errors with a bar."""

from __future__ import annotations

from collections.abc import Mapping


def missed(bar: Mapping[str, float], errors: Mapping[str, float]) -> dict[str, float | None]:
    """Return the errors above the bar, by lengths; None where no error was measured.

    >>> missed({"1-32": 0.0, "33-128": 0.01, "129-1024": 0.1}, {"1-32": 0.0, "33-128": 0.02})
    {'33-128': 0.02, '129-1024': None}

    Args:
        bar: Highest accepted share of wrong sequences, by lengths.
        errors: Measured share of wrong sequences, by lengths.
    """
    found = {lengths: errors.get(lengths) for lengths in bar}
    return {lengths: error for lengths, error in found.items() if error is None or error > bar[lengths]}
