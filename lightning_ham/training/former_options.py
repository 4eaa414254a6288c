"""Renamed and removed options, which old recipes and checkpoints may still have."""

from __future__ import annotations

from collections.abc import Iterable

_SECTION = "model."
_GROUPS = {
    "schedule": ("learning_rate", "final_learning_rate"),
    "exploration": ("entropy_bonus", "final_entropy_bonus", "branch_prior", "final_noise", "cell_noise"),
    "supervision": ("hint_weight", "guided_fraction", "until_error"),
}
MOVED = {name: f"{group}.{name}" for group, names in _GROUPS.items() for name in names}
"""Former arguments of :class:`lightning_ham.training.HAMModule`, with their present names in groups."""
REMOVED = {
    "guide_weight": "the probability of the leaves that a task names always has the weight 1",
    "reinforce.reward": "the reward is always the log-likelihood of a timestep's bits",
    "reinforce.baseline_weight": "the error of the learned baseline always has the weight 1",
}
"""Removed options, each with the behaviour that replaces it."""


def what_became_of(key: str) -> str | None:
    """Return a sentence about what became of a recipe's former key; None for any other key.

    >>> what_became_of("model.entropy_bonus")
    "Key 'model.entropy_bonus' is now 'model.exploration.entropy_bonus'."

    Args:
        key: The full key; for a removed one, its last part suffices.
    """
    name = key.removeprefix(_SECTION)
    if key != name and name in MOVED:
        return f"Key '{key}' is now '{_SECTION}{MOVED[name]}'."
    for gone, instead in REMOVED.items():
        if name in (gone, gone.rpartition(".")[2]):
            return f"Key '{_SECTION}{gone}' is gone: {instead}."
    return None


def check_options(names: Iterable[str]) -> None:
    """Raise a ValueError if an option of a module has been renamed; removed options pass."""
    for name in names:
        if name in MOVED:
            raise ValueError(
                f"Expected a checkpoint whose options stand in groups, but `{name}` is now `{MOVED[name]}`: load its "
                "model with lightning_ham.from_pretrained."
            )
