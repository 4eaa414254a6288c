"""The estimator: how a leaf is chosen in training, and what sends a gradient to the choice."""

from lightning_ham.memory.attention.straight_through import StraightThrough


class NeedleEstimator(StraightThrough):
    """Samples and learns as ``straight_through`` does, and leaves every leaf as it was."""

    def write(self, access, query, write):
        return access.path[:, -1]
