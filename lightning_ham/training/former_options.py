"""Options that have another name now, or are gone: what a recipe or checkpoint from before may still have."""

from __future__ import annotations

from collections.abc import Iterable

_SECTION = "model."
_GROUPS = {
    "schedule": ("learning_rate", "final_learning_rate"),
    "exploration": ("entropy_bonus", "final_entropy_bonus", "branch_prior", "final_noise", "cell_noise"),
    "supervision": ("hint_weight", "guided_fraction", "until_error"),
}
MOVED = {name: f"{group}.{name}" for group, names in _GROUPS.items() for name in names}
"""Arguments of :class:`lightning_ham.training.HAMModule` that stand in a group now, with their names there."""
REMOVED = {
    "guide_weight": "the probability of the leaves that a task names always has the weight 1",
    "reinforce.reward": "the reward is always the log-likelihood of a timestep's bits",
    "reinforce.baseline_weight": "the error of the learned baseline always has the weight 1",
}
"""Options that are gone, with what holds instead."""


def what_became_of(key: str) -> str | None:
    """Say in a sentence what a recipe's key is now, if it is one of before; None if it is not.

    >>> what_became_of("model.entropy_bonus")
    "Key 'model.entropy_bonus' is now 'model.exploration.entropy_bonus'."

    Args:
        key: In full; of one that is gone, its last word is enough.
    """
    name = key.removeprefix(_SECTION)
    if key != name and name in MOVED:
        return f"Key '{key}' is now '{_SECTION}{MOVED[name]}'."
    for gone, instead in REMOVED.items():
        if name in (gone, gone.rpartition(".")[2]):
            return f"Key '{_SECTION}{gone}' is gone: {instead}."
    return None


def check_options(names: Iterable[str]) -> None:
    """Raise a ValueError if one of a module's options has another name now; options that are gone pass."""
    for name in names:
        if name in MOVED:
            raise ValueError(
                f"Expected a checkpoint whose options stand in groups, but `{name}` is now `{MOVED[name]}`: load its "
                "model with lightning_ham.from_pretrained."
            )
