"""Numbers that compiled loops and plain PyTorch share."""

FINEST_DIFFERENCE = 1e-7
"""Difference from which on JOIN tells two reals apart: about the spacing of 32-bit numbers between 1/2 and 1."""

COARSEST_DIFFERENCE = 0.05
"""Difference up to which the gradient of a comparison does not grow any more."""
