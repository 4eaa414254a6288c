"""The LightningModule: a controller, its training objective and its errors."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from lightning_ham.arguments import expect_number, expect_one_of
from lightning_ham.controllers import Rollout
from lightning_ham.evaluation.metrics import SequenceErrors
from lightning_ham.foreign import quoted
from lightning_ham.hub import TrainedModel
from lightning_ham.memory import Engine, HierarchicalAttentiveMemory
from lightning_ham.memory.attention import get_estimator, training_modes
from lightning_ham.memory.engine import check_engine
from lightning_ham.models import OpenStructure, Trace
from lightning_ham.pictures.formats import Picture
from lightning_ham.tasks import Episodes
from lightning_ham.tasks.seeds import stream_seed
from lightning_ham.training.datamodule import TaskDataModule
from lightning_ham.training.former_options import check_options
from lightning_ham.training.namespace import LightningModule, warn_of_other_lightning
from lightning_ham.training.objective import ALONE, Processes, objective
from lightning_ham.training.options import ExplorationOptions, ReinforceOptions, ScheduleOptions, SupervisionOptions
from lightning_ham.training.unused import UnusedOptionsWarning, told, unused_options

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler

TrainingAttention = Literal[tuple(training_modes())]  # type: ignore[valid-type]
"""Names allowed in a recipe: also other packages' estimators, unknown to type checkers."""
_GROUPS = {
    "reinforce": ReinforceOptions,
    "schedule": ScheduleOptions,
    "exploration": ExplorationOptions,
    "supervision": SupervisionOptions,
}
"""Arguments that are groups of options."""
_Group = TypeVar("_Group", ReinforceOptions, ScheduleOptions, ExplorationOptions, SupervisionOptions)


def _made(kind: type[_Group], options: _Group | Mapping[str, Any]) -> _Group:
    """Return a group of options, which a checkpoint stores as a mapping."""
    if not isinstance(options, Mapping):
        return options
    known = [field.name for field in dataclasses.fields(kind)]
    for name in options:
        if name not in known:
            raise ValueError(f"Expected {kind.__name__} to be made of {', '.join(known)}, but got {quoted(name)}.")
    return kind(**options)


def _defaults(maker: type[Any]) -> dict[str, Any]:
    """Return the defaults of a class's arguments, by name."""
    return {name: parameter.default for name, parameter in inspect.signature(maker).parameters.items()}


def _total(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all processes; Lightning's own ``reduce`` would wait for them once more."""
    torch.distributed.all_reduce(value)
    return value


class HAMModule(LightningModule):
    """Trains a controller on a task; pair it with :class:`~lightning_ham.training.TaskDataModule` in any Trainer.

    :mod:`lightning_ham.training.objective` defines the loss. Evaluation is deterministic.

    Args:
        task: Name of the task.
        controller: Name of the controller.
        controller_options: The controller's keyword arguments; missing ones keep their defaults.
        attention: The estimator in training: ``straight_through``, ``straight_through_write`` (if no value read at a
            write is scored), ``reinforce`` (the paper's) or ``soft`` (the paper's Appendix A). It makes no difference
            to a controller without a memory.
        query_share: Share of the gradients of SEARCH and WRITE that the controller's state gets in the
            straight-through attentions, in [0, 1]. The value read depends on the state, and the next state on the
            value: with a share of 1, the gradient passes this loop once an access, and if it grows there, the training
            diverges. With 0, the state does not learn what to look for; 0.1 to 0.3 work if the value read says what to
            look for next.
        reinforce: Options of ``reinforce``; only for that attention.
        schedule: The learning rate over the training.
        exploration: Options that make the training try other leaves, and other values in them.
        supervision: Training signals besides the answers.
        seed: Seed of the sampled branches; every batch and rank has its own stream.
        engine: The implementation that runs the episodes: one of :data:`lightning_ham.memory.Engine`. It affects speed,
            not results, and is not part of the model.
    """

    def __init__(
        self,
        task: str,
        controller: str = "lstm_ham",
        controller_options: dict[str, Any] | None = None,
        attention: TrainingAttention = "straight_through",  # type: ignore[valid-type]
        query_share: float = 1.0,
        reinforce: ReinforceOptions | None = None,
        schedule: ScheduleOptions = ScheduleOptions(),
        exploration: ExplorationOptions = ExplorationOptions(),
        supervision: SupervisionOptions = SupervisionOptions(),
        seed: int = 0,
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        warn_of_other_lightning()
        expect_one_of("attention", attention, training_modes())
        expect_number("query_share", query_share, at_least=0, at_most=1)
        estimator = get_estimator(attention)
        if not estimator.trains:
            raise ValueError(f"Expected argument `attention` to be one that trains, but got {attention!r}.")
        if reinforce is not None and not estimator.uses_rewards:
            raise ValueError(
                f"Expected `reinforce` options only for attention 'reinforce', but got them for {attention!r}."
            )
        check_engine(engine)
        self.attention: TrainingAttention = attention  # type: ignore[valid-type]
        self.reinforce = _made(ReinforceOptions, reinforce or {}) if estimator.uses_rewards else None
        self.schedule = _made(ScheduleOptions, schedule)
        self.exploration = _made(ExplorationOptions, exploration)
        self.supervision = _made(SupervisionOptions, supervision)
        self.seed = seed
        self.model = TrainedModel(task, controller, controller_options)
        if self.supervision.guided_fraction > 0:
            self._check_guide()
        for memory in self._memories:
            memory.engine = engine
            memory.cell_noise = self.exploration.cell_noise
            memory.query_share = query_share
        self.save_hyperparameters(
            {  # plain values only: checkpoints are loaded with weights_only=True
                "task": task,
                "controller": controller,
                "controller_options": self.model.controller_options,
                "attention": attention,
                "query_share": query_share,
                "reinforce": dataclasses.asdict(self.reinforce) if self.reinforce and reinforce is not None else None,
                "schedule": dataclasses.asdict(self.schedule),
                "exploration": dataclasses.asdict(self.exploration),
                "supervision": dataclasses.asdict(self.supervision),
                "seed": seed,
                "engine": engine,
            }
        )
        if self.reinforce and self.reinforce.baseline == "learned":
            self.baseline = nn.Linear(self.model.controller_size, 1)
        self.train_errors = SequenceErrors()
        self.eval_errors: dict[str, SequenceErrors] = {}  # by evaluation set
        self.unused_options = unused_options(*self._options(), self.model)
        """Reasons why options that were set have no effect, by the name of the option."""
        if self.unused_options:
            warnings.warn(told(self.unused_options), UnusedOptionsWarning, stacklevel=2)

    def _options(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments and their defaults, also for each option in a group or of the controller."""
        options: dict[str, Any] = dict(self.hparams)
        makers: dict[str, type[Any]] = {"controller_options": type(self.model.controller), **_GROUPS}
        defaults = _defaults(HAMModule)
        for group, maker in makers.items():
            options |= {f"{group}.{name}": value for name, value in (options[group] or {}).items()}
            defaults |= {f"{group}.{name}": value for name, value in _defaults(maker).items()}
        return options, defaults

    def _check_guide(self) -> None:
        """Raise a ValueError unless the task has a guide and the controller can follow it."""
        task, accesses = self.model.task, self.model.accesses_per_output
        if not task.num_guided:
            raise ValueError(f"Expected argument `guided_fraction` to be 0, as task '{task.name}' has no guide.")
        follows = "guide" in inspect.signature(self.model.controller.forward).parameters
        if not follows or accesses != task.num_guided:
            raise ValueError(
                f"Expected a controller that can be guided, with {task.num_guided} accesses per output, to follow the "
                f"guide of task '{task.name}', but got '{self.model.controller_name}' with {accesses}."
            )

    # For users.

    def forward(self, episodes: Episodes) -> Tensor:
        """Return the logits of the output bits, ``[batch, timesteps, output_size]``, choosing leaves by ``argmax``."""
        rollout: Rollout = self.model(episodes)
        return rollout.outputs

    def solve(self, instances: Iterable[Any]) -> list[Any]:
        """Answer instances of the task; see :meth:`lightning_ham.models.TaskModel.solve`."""
        return self.model.solve(instances)

    def open(self, capacity: int) -> OpenStructure:
        """Open the learned data structure; see :meth:`lightning_ham.models.TaskModel.open`."""
        return self.model.open(capacity)

    def trace(self, instance: Any) -> Trace:
        """Answer one instance, and record each access; see :meth:`lightning_ham.models.TaskModel.trace`."""
        return self.model.trace(instance)

    def draw(self, instance: Any, steps: Sequence[int] | None = None) -> Picture:
        """Draw what the model attends to; see :meth:`lightning_ham.hub.TrainedModel.draw`."""
        return self.model.draw(instance, steps)

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Save the model as a folder that :func:`lightning_ham.from_pretrained` loads.

        Args:
            folder: The destination.
            **options: Facts for the model's card; see :meth:`lightning_ham.hub.TrainedModel.save_pretrained`.
        """
        self.model.save_pretrained(folder, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Publish the model on the Hub; return its address there.

        Args:
            repo_id: ``organisation/name``.
            **options: See :meth:`lightning_ham.hub.TrainedModel.push_to_hub`.
        """
        return self.model.push_to_hub(repo_id, **options)

    # For the Trainer.

    def setup(self, stage: str) -> None:
        """Refuse data of another task, which might go unnoticed if the sizes agree."""
        data = self._data
        if data and data.task.name != self.model.task_name:
            raise ValueError(
                f"Expected data of task '{self.model.task_name}', for which the module was made, "
                f"but got data of task '{data.task.name}'."
            )

    def training_step(self, batch: Episodes, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        rollouts = self.reinforce.rollouts if self.reinforce else 1
        if rollouts > 1:
            batch = Episodes(*(tensor.repeat_interleave(rollouts, dim=0) for tensor in batch))
        # Not the step's number: batches with accumulated gradients share it.
        seed = stream_seed(self.seed, "branches", self.global_rank, self.current_epoch, batch_idx)
        guided = self._is_guided(batch_idx)
        with self._less_noise(self._noise_left()):
            rollout = self.model(batch, self.attention, torch.Generator(self.device).manual_seed(seed), guided=guided)
        bonus = self.exploration.entropy_bonus * self.exploration.final_entropy_bonus**self.progress
        loss, summands = objective(
            rollout,
            batch,
            self.model.task,
            exploration=self.exploration,
            supervision=self.supervision,
            reinforce=self.reinforce,
            bonus=bonus,
            values=self._baseline_values(rollout),
            guided=guided,
            processes=self._processes,
        )
        if self.trainer.world_size > 1:
            # DDP waits for a gradient of every parameter, also of those that a tree of one leaf does not need.
            loss = loss + 0.0 * sum(parameter.sum() for parameter in self.parameters())
        self.train_errors.update(rollout.outputs.detach(), batch)
        for name, value in {**summands, "loss": loss, "entropy_bonus": bonus}.items():
            self._log_mean(name, value)
        return loss

    def _baseline_values(self, rollout: Rollout) -> Tensor | None:
        """Return the learned baseline of every access, ``[batch, accesses]``; None without one."""
        if self.reinforce is None or self.reinforce.baseline != "learned":
            return None
        return self.baseline(rollout.states.detach()).squeeze(-1)

    def _noise_left(self) -> float:
        """Return the scale of the branches' noise at this step and at the curriculum's capacity."""
        data = self._data
        doublings = max(0.0, math.log2(data.capacity / data.first_capacity)) if data else 0.0
        return float(self.exploration.final_noise**self.progress * self.exploration.noise_per_doubling**doublings)

    @contextmanager
    def _less_noise(self, scale: float) -> Iterator[None]:
        """Scale the noise that samples branches; restore it on exit."""
        scales = [(memory, memory.noise) for memory in self._memories]
        try:
            for memory, _ in scales:
                memory.noise = scale
            yield
        finally:
            for memory, before in scales:
                memory.noise = before

    def _is_guided(self, batch_idx: int) -> bool:
        """Return whether to guide a batch: the same on all ranks, as they log the same parts together."""
        draw = random.Random(stream_seed(self.seed, "guided", self.current_epoch, batch_idx))
        return draw.random() < self.supervision.guided_fraction

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint from before options were grouped: Lightning would silently drop them."""
        if self._trainer is None:  # a Trainer that resumes loads only weights, and keeps this module's options
            check_options(checkpoint["hyper_parameters"])

    def on_train_epoch_end(self) -> None:
        """Log the errors of the sampled training episodes."""
        self._log_errors("train", self.train_errors)
        self.train_errors.reset()

    def on_after_backward(self) -> None:
        """Set missing gradients to zero, so that Adam treats unused parameters alike with every engine and with DDP."""
        for parameter in self.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the gradient's norm before clipping."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self._log_mean("gradient_norm", torch.nn.utils.get_total_norm(gradients))

    def on_validation_epoch_start(self) -> None:
        """Reset the errors."""
        self._reset_eval_errors()

    def on_test_epoch_start(self) -> None:
        """Reset the errors."""
        self._reset_eval_errors()

    def validation_step(self, batch: Episodes, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the errors of one batch."""
        self._count_errors(batch, dataloader_idx)

    def test_step(self, batch: Episodes, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the errors of one batch."""
        self._count_errors(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the errors of every validation set, and ``val/score``, which decides on the best checkpoint.

        The score is the mean sequence error over the sets, plus 1 for every remaining doubling of the curriculum.
        """
        errors = self._log_all_errors("val")
        data = self._data
        doublings = math.log2(data.final_capacity / data.capacity) if data else 0.0
        self.log("val/score", sum(errors) / max(len(errors), 1) + doublings)

    def on_test_epoch_end(self) -> None:
        """Log the errors of every test set."""
        self._log_all_errors("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam with a learning rate that decays exponentially over the Trainer's steps."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.schedule.learning_rate)
        steps = self.trainer.estimated_stepping_batches
        gamma = self.schedule.final_learning_rate ** (1 / steps) if steps != float("inf") else 1.0
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def progress(self) -> float:
        """Completed share of the Trainer's steps, in [0, 1]; 0 if their total is unknown."""
        steps = self.trainer.estimated_stepping_batches
        return min(1.0, self.global_step / steps)

    @property
    def _processes(self) -> Processes:
        """The processes of this training."""
        number = self.trainer.world_size
        return ALONE if number == 1 else Processes(number, _total)

    @property
    def _memories(self) -> list[HierarchicalAttentiveMemory]:
        return [part for part in self.model.modules() if isinstance(part, HierarchicalAttentiveMemory)]

    @property
    def _data(self) -> TaskDataModule | None:
        """The Trainer's data module, if it is a :class:`TaskDataModule`."""
        data = getattr(self.trainer, "datamodule", None)
        return data if isinstance(data, TaskDataModule) else None

    def _log_mean(self, name: str, value: Tensor | float) -> None:
        """Log the mean of ``value`` over the epoch and over all processes."""
        value = value.detach() if isinstance(value, Tensor) else value
        self.log(f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)

    def _count_errors(self, batch: Episodes, dataloader_idx: int) -> None:
        self.eval_errors[self._set_names()[dataloader_idx]].update(self(batch), batch)

    def _reset_eval_errors(self) -> None:
        # New objects: `fit` cannot update a state that a validation made under `inference_mode`.
        self.eval_errors = {name: SequenceErrors().to(self.device) for name in self._set_names()}

    def _set_names(self) -> list[str]:
        """Return a name for every set: its lengths if a :class:`TaskDataModule` made it, else its number."""
        trainer, data = self.trainer, self._data
        if data is None:
            return [
                str(index)
                for index, _ in enumerate(trainer.num_test_batches if trainer.testing else trainer.num_val_batches)
            ]
        names = [str(lengths) for lengths in data.validation_lengths]
        return names if trainer.testing else ["current", *names]

    def _log_all_errors(self, prefix: str) -> list[float]:
        """Log the errors of all evaluated sets; return their sequence errors."""
        counted = {name: errors for name, errors in self.eval_errors.items() if errors.update_called}
        return [self._log_errors(f"{prefix}/{name}", errors) for name, errors in counted.items()]

    def _log_errors(self, prefix: str, errors: SequenceErrors) -> float:
        """Log ``errors``, already summed over all processes; return the sequence error."""
        values = errors.compute()
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()})
        return float(values["sequence_error"])
