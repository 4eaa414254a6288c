"""Numbers that compiled loops and plain PyTorch share."""

FINEST_DIFFERENCE = 1e-7
"""Smallest difference that JOIN resolves: about the spacing of 32-bit numbers between 1/2 and 1."""

COARSEST_DIFFERENCE = 0.05
"""The gradient of a comparison grows as two reals approach, but not below this difference."""
