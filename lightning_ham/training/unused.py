"""Finds options that have no effect together with the others, to warn of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_ham.memory.attention import get_estimator
from lightning_ham.models import TaskModel

_OF_THE_BONUS = ("exploration.final_entropy_bonus", "exploration.branch_prior")
_OF_THE_CHOICE = ("attention", "reinforce", "exploration.entropy_bonus", *_OF_THE_BONUS)
"""Options of the choice of leaves, and of its reward."""
_OF_STRAIGHT_THROUGH = ("exploration.final_noise", "exploration.noise_per_doubling", "query_share")
"""Options of straight-through gradients."""
_OF_THE_MEMORY = ("exploration.cell_noise", "engine")


class UnusedOptionsWarning(UserWarning):
    """Some options that were set have no effect in this training."""


def unused_options(options: Mapping[str, Any], defaults: Mapping[str, Any], model: TaskModel) -> dict[str, str]:
    """Return the options that differ from their defaults but have no effect, each with the reason.

    Args:
        options: The arguments of :class:`lightning_ham.training.HAMModule`; options in groups, and in
            ``controller_options``, have names such as ``reinforce.discount``.
        defaults: Their defaults, in the same form.
        model: The model in training.
    """
    unused: dict[str, str] = {}
    for names, reason in _reasons(options, model):
        for name in names:
            is_set = name in options and options[name] != defaults.get(name)
            if is_set and name.partition(".")[0] not in unused:
                unused.setdefault(name, reason)
    return unused


def _reasons(options: Mapping[str, Any], model: TaskModel) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the options that this training does not use, with the reason; the most fundamental reason first."""
    attention, guided = options["attention"], options["supervision.guided_fraction"]
    if model.accesses_per_output == 0:
        names = _OF_THE_CHOICE + _OF_STRAIGHT_THROUGH + _OF_THE_MEMORY
        yield names, f"controller '{model.controller_name}' has no memory"
    if not model.task.num_hints:
        yield ("supervision.hint_weight",), f"task '{model.task_name}' has no hints"
    if guided == 1:
        yield _OF_THE_CHOICE + _OF_STRAIGHT_THROUGH, "all batches are guided"
    estimator = get_estimator(attention)
    uses = {
        "exploration.final_noise": estimator.scales_noise,
        "exploration.noise_per_doubling": estimator.scales_noise,
        "query_share": estimator.shares_query,
    }
    not_used = tuple(name for name, is_used in uses.items() if not is_used)
    if not_used:
        yield not_used, f"only straight-through attentions use it, not '{attention}'"
    if options["exploration.entropy_bonus"] == 0:
        yield _OF_THE_BONUS, "the entropy bonus is 0"


def told(unused: Mapping[str, str], section: str = "") -> str:
    """Return a sentence that lists the options without effect, by reason; "" if there are none.

    >>> told({"final_noise": "no noise", "hint_weight": "no hints", "query_share": "no noise"}, "model.")
    "Without effect: 'model.final_noise', 'model.query_share' (no noise); 'model.hint_weight' (no hints)."
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in unused.items():
        by_reason.setdefault(reason, []).append(f"'{section}{name}'")
    parts = [f"{', '.join(names)} ({reason})" for reason, names in by_reason.items()]
    return f"Without effect: {'; '.join(parts)}." if parts else ""
