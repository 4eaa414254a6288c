"""The options of a training, in groups: each a section of a recipe's ``model`` and an argument of ``HAMModule``.

Every group checks its values when it is made, and does not change afterwards.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from lightning_ham.arguments import LARGEST_SIZE, expect_integer, expect_number, expect_one_of

Baseline = Literal["learned", "leave_one_out", "none"]


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
    """The learning rate of Adam over a training."""

    learning_rate: float = 3e-3
    """At the start."""
    final_learning_rate: float = 0.05
    """Fraction of ``learning_rate`` left at the Trainer's last step; exponential decay."""

    def __post_init__(self) -> None:
        """Check the values."""
        expect_number("learning_rate", self.learning_rate, above=0)
        expect_number("final_learning_rate", self.final_learning_rate, above=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class ExplorationOptions:
    """What keeps a training trying other leaves, and other values in them."""

    entropy_bonus: float = 0.003
    """Weight of the branches' entropy per access, at the start."""
    final_entropy_bonus: float = 0.1
    """Fraction of ``entropy_bonus`` left at the Trainer's last step; exponential decay."""
    branch_prior: float = 0.5
    """Probability of going right that the entropy bonus favours. With 0.5 the bonus is just the branches' entropy; with
    less, branches to the left are preferred, other things being equal."""
    final_noise: float = 1.0
    """Fraction of straight-through attentions' noise on branches left at the Trainer's last step; exponential decay."""
    noise_per_doubling: float = 1.0
    """Factor of that noise whenever the curriculum doubles the capacity. In larger trees there are more branches, and a
    wrong one spoils all that follows: noise that suits 8 leaves breaks a training up at 32."""
    cell_noise: float = 0.0
    """Standard deviation of the Gaussian noise added to every embedded cell in training; see
    :meth:`lightning_ham.memory.HierarchicalAttentiveMemory.embed_cells`."""

    def __post_init__(self) -> None:
        """Check the values."""
        expect_number("entropy_bonus", self.entropy_bonus, at_least=0)
        expect_number("final_entropy_bonus", self.final_entropy_bonus, above=0, at_most=1)
        expect_number("branch_prior", self.branch_prior, above=0, below=1)
        expect_number("final_noise", self.final_noise, above=0, at_most=1)
        expect_number("noise_per_doubling", self.noise_per_doubling, above=0, at_most=1)
        expect_number("cell_noise", self.cell_noise, at_least=0)


@dataclasses.dataclass(frozen=True)
class SupervisionOptions:
    """What a training is told beside the answers, and how far into an episode it listens."""

    hint_weight: float = 1.0
    """Weight of the error in hint bits, in tasks that have any; see :class:`lightning_ham.tasks.Task`."""
    guided_fraction: float = 0.0
    """Share of the batches in which the memory attends to the leaves that the task names
    (:meth:`lightning_ham.tasks.Task.guide`), and SEARCH learns their probability: teacher forcing, which tells how to
    solve the task. Only for tasks with a guide, and a controller with as many accesses per output."""
    until_error: bool = False
    """Whether to ignore all that follows the first wrong timestep of an episode. Where outputs build on one another,
    this keeps a training from learning the later ones first, by other means."""

    def __post_init__(self) -> None:
        """Check the values."""
        expect_number("hint_weight", self.hint_weight, at_least=0)
        expect_number("guided_fraction", self.guided_fraction, at_least=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class ReinforceOptions:
    """What the policy gradient of ``reinforce`` is made of (section 3.2 of the paper)."""

    discount: float = 0.9
    """Factor per access by which later rewards count less in the return of an access (gamma)."""
    baseline: Baseline = "learned"
    """What is subtracted from the returns: a learned linear function of the controller's state, the mean of the other
    rollouts of the same episode, or nothing."""
    rollouts: int = 1
    """Rollouts of every episode in a batch; ``leave_one_out`` needs 2 or more."""
    normalize: bool = True
    """Whether advantages are divided by their standard deviation over the batch."""

    def __post_init__(self) -> None:
        """Check the values."""
        expect_one_of("baseline", self.baseline, get_args(Baseline))
        expect_number("discount", self.discount, at_least=0, at_most=1)
        expect_integer("rollouts", self.rollouts, at_most=LARGEST_SIZE)
        least = 2 if self.baseline == "leave_one_out" else 1
        if self.rollouts < least:
            raise ValueError(
                f"Expected argument `rollouts` to be at least {least} for baseline '{self.baseline}', "
                f"but got {self.rollouts}."
            )
