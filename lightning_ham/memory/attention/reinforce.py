"""Sampled branches that learn from rewards (section 3.2 of the paper)."""

from __future__ import annotations

from lightning_ham.memory.attention.estimator import Compiled, Estimator


class Reinforce(Estimator):
    """Samples every branch; only the log-probability of the branches carries a gradient to SEARCH.

    Guided accesses use it too: noise that forces the branches leads it to a given leaf.
    """

    uses_rewards = True
    compiled = Compiled()

    def noise_count(self, depth: int) -> int:
        """One for each branch."""
        return depth
