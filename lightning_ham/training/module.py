"""The LightningModule: a controller, the objective that trains it, and the errors that judge it."""

from __future__ import annotations

import dataclasses
import inspect
import math
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_ham.arguments import LARGEST_SIZE, expect_integer, expect_number, expect_one_of
from lightning_ham.controllers import Rollout
from lightning_ham.memory import Engine, HierarchicalAttentiveMemory
from lightning_ham.memory.attention import get_estimator, training_modes
from lightning_ham.memory.engine import check_engine
from lightning_ham.models import OpenStructure, TaskModel, Trace
from lightning_ham.tasks import Episodes
from lightning_ham.training import losses
from lightning_ham.training.datamodule import TaskDataModule, stream_seed, warn_of_other_lightning
from lightning_ham.training.metrics import SequenceErrors
from lightning_ham.training.unused import UnusedOptionsWarning, told, unused_options

if TYPE_CHECKING:
    TrainingAttention = str
else:  # what recipes may say: those of other packages too
    TrainingAttention = Literal[tuple(training_modes())]
Reward = Literal["log_likelihood", "bit_accuracy"]
Baseline = Literal["learned", "leave_one_out", "none"]


@dataclasses.dataclass
class ReinforceOptions:
    """What the policy gradient of ``reinforce`` is made of (section 3.2 of the paper)."""

    reward: Reward = "log_likelihood"
    """Of a timestep: the log-likelihood of its bits, or the share of them that is right."""
    discount: float = 0.9
    """Factor per access by which later rewards count less in the return of an access (gamma)."""
    baseline: Baseline = "learned"
    """What is subtracted from the returns: a learned linear function of the controller's state, the mean of the other
    rollouts of the same episode, or nothing."""
    baseline_weight: float = 1.0
    """Weight of the learned baseline's squared error in the loss."""
    rollouts: int = 1
    """Rollouts of every episode in a batch; ``leave_one_out`` needs 2 or more."""
    normalize: bool = True
    """Whether advantages are divided by their standard deviation over the batch."""

    def __post_init__(self) -> None:
        """Check the values."""
        expect_one_of("reward", self.reward, get_args(Reward))
        expect_one_of("baseline", self.baseline, get_args(Baseline))
        expect_number("discount", self.discount, at_least=0, at_most=1)
        expect_number("baseline_weight", self.baseline_weight, above=0)
        expect_integer("rollouts", self.rollouts, at_most=LARGEST_SIZE)
        least = 2 if self.baseline == "leave_one_out" else 1
        if self.rollouts < least:
            raise ValueError(
                f"Expected argument `rollouts` to be at least {least} for baseline '{self.baseline}', "
                f"but got {self.rollouts}."
            )


class HAMModule(LightningModule):
    """Trains a controller on a task; pair it with :class:`~lightning_ham.training.TaskDataModule` in any Trainer.

    The loss per batch is the negative log-likelihood of the scored bits per timestep, minus the entropy bonus, plus,
    for ``reinforce``, the policy gradient and the error of the learned baseline. Evaluation is deterministic.

    Args:
        task: Name of the task.
        controller: Name of the controller.
        controller_options: The controller's keyword arguments; those not given keep their defaults.
        attention: How leaves are chosen in training: ``straight_through``, ``straight_through_write`` (where what is
            read at a write is not scored), ``reinforce`` (the paper's) or ``soft`` (the paper's Appendix A). A
            controller without a memory is trained alike by all of them.
        reinforce: Options of ``reinforce``; only for that attention.
        learning_rate: Of Adam, at the start.
        final_learning_rate: Fraction of ``learning_rate`` left at the Trainer's last step; exponential decay.
        entropy_bonus: Weight of the branches' entropy per access, at the start.
        final_entropy_bonus: Fraction of ``entropy_bonus`` that is left at the Trainer's last step.
        branch_prior: Probability of going right to which the entropy bonus draws the branches. With 0.5 it is their
            entropy, no more; with less, leaves on the left are preferred where nothing speaks against it.
        final_noise: Fraction of the noise with which the straight-through attentions sample branches that is left at
            the Trainer's last step; exponential decay.
        query_share: Share of the gradients of SEARCH and WRITE that goes on to the controller's state in the
            straight-through attentions, in [0, 1]. What is read depends on the state, and the state on what was read:
            with all of it, the gradient goes around this loop once an access, and where it grows on the way, a training
            breaks up. With 0, the state does not learn to look for anything; where what is read says what to look for
            next, 0.1 to 0.3 do.
        hint_weight: Weight of the error in hint bits, in tasks that have any (see :class:`lightning_ham.tasks.Task`).
        until_error: Whether nothing after the first wrong timestep of an episode counts in training. Where outputs
            build on one another, this keeps the later ones from being learned first, by other means.
        cell_noise: Standard deviation of the Gaussian noise added to every embedded cell in training; see
            :meth:`lightning_ham.memory.HierarchicalAttentiveMemory.embed_cells`.
        guided_fraction: Share of the batches in which the memory attends to the leaves that the task names
            (:meth:`lightning_ham.tasks.Task.guide`), and SEARCH learns their probability: teacher forcing, a help that
            tells how to solve the task. Only for tasks with a guide, and a controller with as many accesses per output.
        guide_weight: Weight of the negative log-probability per access of these leaves.
        seed: Seed of the sampled branches; every batch and rank has a stream of its own.
        engine: Which implementation runs the episodes: ``auto``, or one that :data:`lightning_ham.memory.Engine` lists.
            It changes the speed, not what is learned, and is no part of the model.
    """

    def __init__(
        self,
        task: str,
        controller: str = "lstm_ham",
        controller_options: dict[str, Any] | None = None,
        attention: TrainingAttention = "straight_through",
        reinforce: ReinforceOptions | None = None,
        learning_rate: float = 3e-3,
        final_learning_rate: float = 0.05,
        entropy_bonus: float = 0.003,
        final_entropy_bonus: float = 0.1,
        branch_prior: float = 0.5,
        final_noise: float = 1.0,
        query_share: float = 1.0,
        until_error: bool = False,
        hint_weight: float = 1.0,
        cell_noise: float = 0.0,
        guided_fraction: float = 0.0,
        guide_weight: float = 1.0,
        seed: int = 0,
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        warn_of_other_lightning()
        expect_one_of("attention", attention, training_modes())
        estimator = get_estimator(attention)
        if not estimator.trains:
            raise ValueError(f"Expected argument `attention` to be one that trains, but got {attention!r}.")
        if reinforce is not None and not estimator.uses_rewards:
            raise ValueError(
                f"Expected `reinforce` options only for attention 'reinforce', but got them for {attention!r}."
            )
        if isinstance(reinforce, Mapping):  # as it comes back from a checkpoint
            reinforce = ReinforceOptions(**reinforce)
        expect_number("learning_rate", learning_rate, above=0)
        expect_number("branch_prior", branch_prior, above=0, below=1)
        for name, weight in {
            "entropy_bonus": entropy_bonus,
            "hint_weight": hint_weight,
            "cell_noise": cell_noise,
            "guide_weight": guide_weight,
        }.items():
            expect_number(name, weight, at_least=0)
        for name, share in {"guided_fraction": guided_fraction, "query_share": query_share}.items():
            expect_number(name, share, at_least=0, at_most=1)
        for name, fraction in {
            "final_learning_rate": final_learning_rate,
            "final_entropy_bonus": final_entropy_bonus,
            "final_noise": final_noise,
        }.items():
            expect_number(name, fraction, above=0, at_most=1)
        check_engine(engine)
        self.model = TaskModel(task, controller, controller_options)
        if guided_fraction > 0:
            self._check_guide()
        for memory in self._memories:
            memory.engine = engine
            memory.cell_noise = cell_noise
            memory.query_share = query_share
        self.save_hyperparameters(
            {  # plain values only: checkpoints are loaded with weights_only=True
                "task": task,
                "controller": controller,
                "controller_options": self.model.controller_options,
                "attention": attention,
                "reinforce": dataclasses.asdict(reinforce) if reinforce else None,
                "learning_rate": learning_rate,
                "final_learning_rate": final_learning_rate,
                "entropy_bonus": entropy_bonus,
                "final_entropy_bonus": final_entropy_bonus,
                "branch_prior": branch_prior,
                "final_noise": final_noise,
                "query_share": query_share,
                "hint_weight": hint_weight,
                "cell_noise": cell_noise,
                "guided_fraction": guided_fraction,
                "guide_weight": guide_weight,
                "until_error": until_error,
                "seed": seed,
                "engine": engine,
            }
        )
        self.attention: TrainingAttention = attention
        self.reinforce = (reinforce or ReinforceOptions()) if estimator.uses_rewards else None
        self.learning_rate = learning_rate
        self.final_learning_rate = final_learning_rate
        self.entropy_bonus = entropy_bonus
        self.final_entropy_bonus = final_entropy_bonus
        self.branch_prior = branch_prior
        self.final_noise = final_noise
        self.hint_weight = hint_weight
        self.guided_fraction = guided_fraction
        self.guide_weight = guide_weight
        self.until_error = until_error
        self.seed = seed
        if self.reinforce and self.reinforce.baseline == "learned":
            self.baseline = nn.Linear(self.model.controller_size, 1)
        self.train_errors = SequenceErrors()
        self.eval_errors: dict[str, SequenceErrors] = {}  # one a set
        self.unused_options = unused_options(*self._options(), self.model)
        """Options that have no effect here, though they were set, with the reason; by the name of the argument."""
        if self.unused_options:
            warnings.warn(told(self.unused_options), UnusedOptionsWarning, stacklevel=2)

    def _options(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments and their defaults, those of the controller and of ``reinforce`` by names of theirs."""
        options: dict[str, Any] = dict(self.hparams)
        signatures: dict[str, type[Any]] = {"": HAMModule, "controller_options.": type(self.model.controller)}
        options |= {f"controller_options.{name}": value for name, value in self.model.controller_options.items()}
        if self.reinforce:
            options |= {f"reinforce.{name}": value for name, value in dataclasses.asdict(self.reinforce).items()}
            signatures["reinforce."] = ReinforceOptions
        defaults = {
            f"{prefix}{name}": parameter.default
            for prefix, made in signatures.items()
            for name, parameter in inspect.signature(made).parameters.items()
        }
        return options, defaults

    def _check_guide(self) -> None:
        """Raise a ValueError unless the task has a guide, and the controller follows it."""
        task, accesses = self.model.task, self.model.accesses_per_output
        if not task.num_guided:
            raise ValueError(f"Expected argument `guided_fraction` to be 0, as task '{task.name}' has no guide.")
        follows = "guide" in inspect.signature(self.model.controller.forward).parameters
        if not follows or accesses != task.num_guided:
            raise ValueError(
                f"Expected a controller that can be guided, with {task.num_guided} accesses per output, to follow the "
                f"guide of task '{task.name}', but got '{self.model.controller_name}' with {accesses}."
            )

    # What a user calls.

    def forward(self, episodes: Episodes) -> Tensor:
        """Return the logits of the output bits, ``[batch, timesteps, output_size]``, choosing leaves by ``argmax``."""
        rollout: Rollout = self.model(episodes)
        return rollout.outputs

    def solve(self, instances: Iterable[Any]) -> list[Any]:
        """Answer instances of the task; see :meth:`lightning_ham.models.TaskModel.solve`."""
        return self.model.solve(instances)

    def open(self, capacity: int) -> OpenStructure:
        """Open the data structure that was learned; see :meth:`lightning_ham.models.TaskModel.open`."""
        return self.model.open(capacity)

    def trace(self, instance: Any) -> Trace:
        """Tell what the model attends to in one instance; see :meth:`lightning_ham.models.TaskModel.trace`."""
        return self.model.trace(instance)

    # What the Trainer calls.

    def setup(self, stage: str) -> None:
        """Refuse data of another task: their sizes may agree, and then nothing else would tell."""
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
        # Not the number of the step, which batches share where their gradients are accumulated.
        seed = stream_seed(self.seed, "branches", self.global_rank, self.current_epoch, batch_idx)
        guided = self._is_guided(batch_idx)
        with self._less_noise(self.final_noise**self.progress):
            rollout = self.model(batch, self.attention, torch.Generator(self.device).manual_seed(seed), guided=guided)
        scored = (
            losses.until_first_error(rollout.outputs, batch.targets, batch.scored) if self.until_error else batch.scored
        )
        parts = self.loss_parts(rollout, batch._replace(scored=scored), guided=guided)
        bonus = self.entropy_bonus * self.final_entropy_bonus**self.progress
        if guided:
            choice = self.guide_weight * parts["guide"]
        else:
            regularity = parts["entropy"] + parts.get("prior", 0.0)
            choice = parts.get("policy", 0.0) + parts.get("baseline", 0.0) - bonus * regularity
        loss = parts["nll"] + choice
        loss = loss + self.hint_weight * parts.get("hint", 0.0)
        if self.trainer.world_size > 1:
            # A tree of one leaf has nothing to search or to join, but DDP waits for a gradient of every parameter.
            loss = loss + 0.0 * sum(parameter.sum() for parameter in self.parameters())
        self.train_errors.update(rollout.outputs.detach(), batch)
        for name, value in {**parts, "loss": loss, "entropy_bonus": bonus}.items():
            self._log_mean(name, value)
        return loss

    @contextmanager
    def _less_noise(self, scale: float) -> Iterator[None]:
        """Sample branches with noise scaled by ``scale``: in here only, so that the memory is left as it was."""
        scales = [(memory, memory.noise) for memory in self._memories]
        try:
            for memory, _ in scales:
                memory.noise = scale
            yield
        finally:
            for memory, before in scales:
                memory.noise = before

    def _is_guided(self, batch_idx: int) -> bool:
        """Whether a batch is a guided one: for all ranks alike, as they wait for each other's logged parts."""
        draw = random.Random(stream_seed(self.seed, "guided", self.current_epoch, batch_idx))
        return draw.random() < self.guided_fraction

    def loss_parts(self, rollout: Rollout, batch: Episodes, *, guided: bool = False) -> dict[str, Tensor]:
        """Return the unweighted entropy and the other summands of the loss, each a scalar per timestep or access."""
        likelihood = losses.log_likelihood(rollout.outputs, batch.targets, batch.scored)
        scored = batch.scored.any(dim=-1)
        per_output = self.model.accesses_per_output
        last = scored.flip(1).cumsum(dim=1).flip(1) > 0  # an access counts up to the last scored timestep
        counts = last.repeat_interleave(per_output, dim=1)
        parts = {
            "nll": -losses.masked_mean(likelihood, scored),
            "entropy": losses.masked_mean(rollout.entropies, counts),
        }
        if self.branch_prior != 0.5:
            prior = losses.log_prior(rollout.branch_probs, self.branch_prior)
            parts["prior"] = losses.masked_mean(prior, counts)
        if self.model.task.num_hints:
            hinted = self.model.task.hinted(batch)
            hints = losses.log_likelihood(rollout.outputs, batch.targets, hinted)
            parts["hint"] = -losses.masked_mean(hints, hinted.any(dim=-1))
        if guided:
            parts["guide"] = -losses.masked_mean(rollout.log_probs, counts)
            return parts
        options = self.reinforce
        if options is None or per_output == 0:  # without a memory there is no choice to reward
            return parts
        if options.reward == "log_likelihood":
            rewards = likelihood.detach()
        else:
            rewards = losses.bit_accuracy(rollout.outputs, batch.targets, batch.scored)
        rewards = losses.spread_over_accesses(rewards, per_output)
        returns = losses.discounted_returns(rewards, options.discount)
        advantages = returns
        if options.baseline == "learned":
            values = self.baseline(rollout.states.detach()).squeeze(-1)
            advantages = returns - values.detach()
            parts["baseline"] = options.baseline_weight * losses.baseline_loss(values, returns, counts)
        elif options.baseline == "leave_one_out":
            advantages = returns - losses.leave_one_out_baseline(returns, options.rollouts)
        if options.normalize:
            deviations = advantages - losses.masked_mean(advantages, counts)
            advantages = advantages / (losses.masked_mean(deviations**2, counts) + 1e-8).sqrt()
        # Per scored timestep, as the likelihood is: together they are then the gradient of one objective.
        accesses_per_timestep = counts.sum() / scored.sum().clamp(min=1)
        parts["policy"] = accesses_per_timestep * losses.policy_gradient_loss(rollout.log_probs, advantages, counts)
        return parts

    def on_train_epoch_end(self) -> None:
        """Log the errors of the sampled training episodes."""
        self._log_errors("train", self.train_errors)
        self.train_errors.reset()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the gradient's norm before clipping."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self._log_mean("gradient_norm", torch.nn.utils.get_total_norm(gradients))

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self._reset_eval_errors()

    def on_test_epoch_start(self) -> None:
        """Begin to count."""
        self._reset_eval_errors()

    def validation_step(self, batch: Episodes, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the errors of one batch."""
        self._count_errors(batch, dataloader_idx)

    def test_step(self, batch: Episodes, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count the errors of one batch."""
        self._count_errors(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the errors of every validation set, and ``val/score``, by which the best checkpoint is chosen.

        The score is the mean sequence error over the sets, plus 1 for every doubling that the curriculum has ahead.
        """
        errors = self._log_all_errors("val")
        data = self._data
        doublings = math.log2(data.final_capacity / data.capacity) if data else 0.0
        self.log("val/score", sum(errors) / max(len(errors), 1) + doublings)

    def on_test_epoch_end(self) -> None:
        """Log the errors of every test set."""
        self._log_all_errors("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, whose learning rate decays exponentially over the Trainer's steps."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = self.trainer.estimated_stepping_batches
        gamma = self.final_learning_rate ** (1 / steps) if steps != float("inf") else 1.0
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def progress(self) -> float:
        """Share of the Trainer's steps that are done, in [0, 1]; 0 where their number is not known."""
        steps = self.trainer.estimated_stepping_batches
        return min(1.0, self.global_step / steps)

    @property
    def _memories(self) -> list[HierarchicalAttentiveMemory]:
        return [part for part in self.model.modules() if isinstance(part, HierarchicalAttentiveMemory)]

    @property
    def _data(self) -> TaskDataModule | None:
        """The Trainer's data, where they are ours."""
        data = getattr(self.trainer, "datamodule", None)
        return data if isinstance(data, TaskDataModule) else None

    def _log_mean(self, name: str, value: Tensor | float) -> None:
        """Log the mean of ``value`` over the epoch and over all processes."""
        value = value.detach() if isinstance(value, Tensor) else value
        self.log(f"train/{name}", value, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)

    def _count_errors(self, batch: Episodes, dataloader_idx: int) -> None:
        self.eval_errors[self._set_names()[dataloader_idx]].update(self(batch), batch)

    def _reset_eval_errors(self) -> None:
        # New ones: a state that a validation under `inference_mode` leaves behind cannot be updated in `fit`.
        self.eval_errors = {name: SequenceErrors().to(self.device) for name in self._set_names()}

    def _set_names(self) -> list[str]:
        """Return, for every set, the lengths that it holds if our DataModule made it, else its number."""
        trainer, data = self.trainer, self._data
        if data is None:
            return [
                str(index)
                for index, _ in enumerate(trainer.num_test_batches if trainer.testing else trainer.num_val_batches)
            ]
        names = [str(lengths) for lengths in data.validation_lengths]
        return names if trainer.testing else ["current", *names]

    def _log_all_errors(self, prefix: str) -> list[float]:
        """Log all sets that were counted; return their sequence errors."""
        counted = {name: errors for name, errors in self.eval_errors.items() if errors.update_called}
        return [self._log_errors(f"{prefix}/{name}", errors) for name, errors in counted.items()]

    def _log_errors(self, prefix: str, errors: SequenceErrors) -> float:
        """Log ``errors``, which are sums over all processes already; return the sequence error."""
        values = errors.compute()
        self.log_dict({f"{prefix}/{name}": value for name, value in values.items()})
        return float(values["sequence_error"])
