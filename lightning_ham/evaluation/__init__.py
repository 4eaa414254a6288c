"""Evaluation: how often a model is wrong, and in which way, in torch only.

Only `metrics` needs torchmetrics; modules that log import it.
"""

from lightning_ham.evaluation.intervals import wilson_interval
from lightning_ham.evaluation.protocol import check_lengths, episodes_per_range, evaluate
from lightning_ham.evaluation.record import Evaluation, LengthResult, Machine
from lightning_ham.evaluation.words import table

__all__ = [
    "Evaluation",
    "LengthResult",
    "Machine",
    "check_lengths",
    "episodes_per_range",
    "evaluate",
    "table",
    "wilson_interval",
]
