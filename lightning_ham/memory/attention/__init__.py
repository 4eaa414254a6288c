"""Estimators choose a leaf and send a gradient to the choice: one class for each mode.

==========================  ========================================================================================
mode                        choice, and what carries the gradient
==========================  ========================================================================================
``reinforce``               sampled; only the log-probability of the branches (section 3.2 of the paper)
``straight_through``        sampled; the value read, through descents from the siblings not taken (ours)
``straight_through_write``  the same, and the place of the write as well (ours)
``soft``                    no choice: every leaf, weighted by its probability (Appendix A of the paper)
``argmax``                  right iff the probability is above 1/2; for evaluation, deterministic
==========================  ========================================================================================
"""

from lightning_ham.memory.attention.estimator import Access, Compiled, Estimator
from lightning_ham.memory.attention.registry import (
    AttentionMode,
    attention_modes,
    get_estimator,
    training_modes,
)

__all__ = [
    "Access",
    "AttentionMode",
    "Compiled",
    "Estimator",
    "attention_modes",
    "get_estimator",
    "training_modes",
]
