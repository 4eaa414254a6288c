"""A controller together with its task: from Python values to Python answers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from lightning_ham.controllers import Controller, Rollout, complete_options, make_controller
from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.engines import has_numba, may_compile
from lightning_ham.memory import AttentionMode, HierarchicalAttentiveMemory
from lightning_ham.models.online import OpenStructure
from lightning_ham.tasks import Episodes, Lengths, capacity_for, get_task
from lightning_ham.tasks.structures import Structure

ACCEPTABLE_ERROR = 0.01
"""Greatest share of wrong sequences at lengths that count as solved."""


class AnswerWarning(UserWarning):
    """A model answers instances on which its errors are unknown or high."""


class TraceStep(TypedDict):
    """One access to the memory."""

    leaf: int
    """Index of the attended leaf, from 0 on the left."""
    branch_probabilities: list[float]
    """Probability of going right at each node of the path, from the root down."""
    output: list[int]
    """The output bits of this access's timestep."""


class Trace(TypedDict):
    """The accesses and the answer for one instance, as plain data."""

    num_leaves: int
    steps: list[TraceStep]
    answer: Any


class TaskModel(nn.Module):
    """A controller for one task.

    Args:
        task: Name of the task.
        controller: Name of the controller.
        controller_options: The controller's keyword arguments; missing ones default to the task's values, else to the
            controller's.
    """

    def __init__(
        self, task: str, controller: str = "lstm_ham", controller_options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.task_name = task
        self.task = get_task(task)
        self.controller_name = controller
        self.controller_options = complete_options(controller, controller_options or {}, self.task.controller_defaults)
        self.controller = make_controller(
            controller, self.task.input_size, self.task.output_size, self.controller_options
        )

    @property
    def num_parameters(self) -> int:
        """Number of learned parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def controller_size(self) -> int:
        """Numbers in the controller's state."""
        return cast(Controller, self.controller).controller_size

    @property
    def accesses_per_output(self) -> int:
        """Accesses to the memory before each output symbol; 0 if there is no memory."""
        return cast(Controller, self.controller).accesses_per_output

    @property
    def is_compiled(self) -> bool:
        """Whether compiled loops may run its episodes: with hard attention, on the CPU."""
        memories = (part for part in self.modules() if isinstance(part, HierarchicalAttentiveMemory))
        return any(may_compile(memory.engine) for memory in memories) and self.device.type == "cpu" and has_numba()

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def measured(self) -> Mapping[Lengths, float]:
        """Measured share of wrong sequences, in [0, 1], by range of lengths; empty by default."""
        return {}

    def forward(
        self,
        episodes: Episodes,
        attention: AttentionMode = "argmax",
        generator: torch.Generator | None = None,
        *,
        guided: bool = False,
    ) -> Rollout:
        """Run ``episodes`` for as many timesteps as their targets have.

        Args:
            episodes: The episodes to answer.
            attention: Name of the estimator.
            generator: Source of the samples; torch's global one if not given.
            guided: Whether to attend to the leaves that the task names
                (:meth:`lightning_ham.tasks.Task.guide`); the controller must take a guide.
        """
        timesteps = episodes.targets.shape[1]
        guide = {"guide": self.task.guide(episodes).flatten(1)} if guided else {}
        rollout: Rollout = self.controller(episodes.inputs, episodes.occupied, timesteps, attention, generator, **guide)
        return rollout

    def solve(self, instances: Iterable[Any], *, batch_size: int = 256) -> list[Any]:
        """Answer instances of the task, each in the smallest tree that holds it.

        The task defines the form of instances and answers, for example ``[(key, value), ...]`` for ``sort``; arrays,
        tensors, ranges, generators and the like may replace lists. The model answers by itself, right or wrong; an
        answer ends where the model says so, or with the timesteps of the right answer. An :class:`AnswerWarning` is
        issued if instances are longer than any that the model was evaluated on or found right on, or unlike all
        samples.

        Args:
            instances: A list of instances, of any lengths.
            batch_size: Most instances answered at a time.

        Raises:
            InstanceError: Before any answer, if an instance does not belong to the task.
            ValueError: If the batch size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"Expected argument `batch_size` to be at least 1, but got {batch_size}.")
        accepted = self.task.accept_all(instances)
        capacities = self._capacities(accepted)
        answers: list[Any] = [None] * len(accepted)
        for positions in _batches(capacities, batch_size):
            inputs, outputs, _, lengths = self._run([accepted[i] for i in positions])
            for position, length, cells, bits in zip(positions, lengths, inputs, outputs, strict=True):
                # Longer instances in the batch give it extra timesteps.
                answers[position] = self.task.decode(bits[: self.task.timesteps_for(length)], cells)
        return answers

    @property
    def is_certified(self) -> bool:
        """Whether there is a proof that it is right for every capacity; see :mod:`lightning_ham.certification`."""
        return False

    def open(self, capacity: int | None = None) -> OpenStructure:
        """Open an empty data structure that the model has learned; its elements exist only in the memory.

        Args:
            capacity: Most elements at a time. None: unbounded; it grows like a list. Only for a certified model, which
                is right for every capacity.

        Raises:
            ValueError: If the model's task is no data structure, its controller is not ``raw_ham``, the capacity is
                below 1, or there is none and the model is not certified.
        """
        if not isinstance(self.task, Structure) or not isinstance(self.controller, RawHAM):
            raise ValueError(
                "Expected a model of a data structure (stack, queue or priority_queue) with the controller 'raw_ham', "
                f"but got one of {self.task_name!r} with {self.controller_name!r}."
            )
        if capacity is None and not self.is_certified:
            raise ValueError(
                "Expected a capacity, such as open(128): only a certified model is known to be right for every one. "
                "`python -m lightning_ham.models` lists those."
            )
        return OpenStructure(self.task, self.controller, capacity)

    def trace(self, instance: Any) -> Trace:
        """Answer one instance, and record each access: the attended leaf and the branch probabilities.

        Args:
            instance: In any form that :meth:`solve` takes.

        Raises:
            InstanceError: If the instance does not belong to the task.
            ValueError: If the controller has no memory.
        """
        if self.accesses_per_output == 0:
            raise ValueError(
                f"Expected a model with a memory to trace, but got the controller {self.controller_name!r}, "
                "which has none."
            )
        accepted = self.task.accept(instance)
        (num_leaves,) = self._capacities([accepted])
        inputs, outputs, rollout, _ = self._run([accepted])
        bits = outputs[0].long().tolist()
        per_output = rollout.leaves.shape[1] // len(bits)
        steps: list[TraceStep] = [
            {"leaf": leaf, "branch_probabilities": probabilities, "output": bits[access // per_output]}
            for access, (leaf, probabilities) in enumerate(
                zip(rollout.leaves[0].tolist(), rollout.branch_probs[0].tolist(), strict=True)
            )
        ]
        answer = self.task.decode(outputs[0], inputs[0])
        return self._shown(accepted, {"num_leaves": num_leaves, "steps": steps, "answer": answer})

    def _shown(self, instance: Any, trace: Trace) -> Trace:
        """Return the trace of an instance in the form that :meth:`trace` returns."""
        return trace

    def _capacities(self, instances: Sequence[Any]) -> list[int]:
        """Return the leaves for each instance; warn once if the errors on some are unknown or high."""
        lengths = [self.task.instance_length(instance) for instance in instances]
        for doubt in (self._doubt_of_length(max(lengths, default=0)), self._doubt_of_kind(instances)):
            if doubt:
                warnings.warn(doubt, AnswerWarning, stacklevel=3)
        return [capacity_for(length) for length in lengths]

    def _doubt_of_length(self, longest: int) -> str | None:
        """Return a warning if the errors on the longest instance are unknown or high."""
        words = self.task.size_in_words
        spans = sorted(self.measured, key=lambda span: span.high)
        right = [span.high for span in takewhile(lambda span: self.measured[span] <= ACCEPTABLE_ERROR, spans)]
        if spans and longest > spans[-1].high:
            return (
                f"Got up to {words(longest)}, but the model was evaluated on up to {words(spans[-1].high)} only: "
                "nothing is known of its errors beyond."
            )
        if right and longest > right[-1]:
            span = next(span for span in spans if span.high >= longest)
            return (
                f"Got up to {words(longest)}, but the model was found right on up to {words(right[-1])} only: "
                f"{100 * self.measured[span]:.3g} % of the sequences with up to {words(span.high)} were wrong."
            )
        return None

    def _doubt_of_kind(self, instances: Sequence[Any]) -> str | None:
        """Return a warning if an instance is unlike all samples."""
        doubts = [doubt for doubt in map(self.task.outside_samples, instances) if doubt]
        if not doubts:
            return None
        others = f" (so are {len(doubts) - 1:,} more)" if len(doubts) > 1 else ""
        return (
            f"Got an instance unlike all that the model was trained and evaluated on: {doubts[0]}{others}. "
            "Its answer may be wrong."
        )

    @torch.inference_mode()
    def _run(self, instances: Sequence[Any]) -> tuple[Tensor, Tensor, Rollout, list[int]]:
        """Run instances deterministically, without their right answers.

        Returns:
            The cells ``[batch, capacity, input_size]`` and the output bits ``[batch, timesteps, output_size]``, on the
            CPU, then the controller's rollout and the lengths.
        """
        inputs, occupied, lengths = self.task.encode_inputs(instances)
        timesteps = max(map(self.task.timesteps_for, lengths.tolist()))
        was_training = self.training
        self.eval()
        try:
            rollout: Rollout = self.controller(inputs.to(self.device), occupied.to(self.device), timesteps, "argmax")
        finally:
            self.train(was_training)
        return inputs, (rollout.outputs > 0).cpu(), rollout, lengths.tolist()


def _batches(capacities: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield positions of instances with the same capacity, so that no answer depends on its neighbours."""
    by_capacity: dict[int, list[int]] = {}
    for position, capacity in enumerate(capacities):
        by_capacity.setdefault(capacity, []).append(position)
    for positions in by_capacity.values():
        for start in range(0, len(positions), batch_size):
            yield positions[start : start + batch_size]
