"""The more probable branch at every node: deterministic, for evaluation."""

from __future__ import annotations

from lightning_ham.memory.attention.estimator import Compiled, Estimator


class Argmax(Estimator):
    """Goes right iff the probability is above 1/2; nothing carries a gradient to SEARCH."""

    trains = False
    compiled = Compiled()
