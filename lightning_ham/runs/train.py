"""A training from a recipe to a model: claim the folder, train, evaluate, export and publish."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from lightning_ham.certification import Certificate, ConsolidationOptions, consolidate, structure_of
from lightning_ham.controllers import set_num_threads
from lightning_ham.evaluation import evaluate, table
from lightning_ham.evaluation.record import describe_versions
from lightning_ham.foreign import LONGEST_MESSAGE, shown
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.card import TrainingInfo, missed_bar
from lightning_ham.hub.card_pictures import card_pictures
from lightning_ham.hub.push import check_token
from lightning_ham.memory.attention import get_estimator
from lightning_ham.runs import commands, tracking
from lightning_ham.runs.checkpoints import BestCheckpoint, LastCheckpoint, WholeCheckpointIO, best_model
from lightning_ham.runs.endings import Ending, EndOnSignal, explain, output_goes_on
from lightning_ham.runs.folder import (
    EVALUATION,
    LAST,
    METRICS,
    MODEL,
    RECIPE,
    TRAINING,
    Choice,
    Claim,
    choose,
    read_json,
    write_json,
    write_whole,
)
from lightning_ham.runs.learning_curve import read_curve
from lightning_ham.runs.progress import AboveBar
from lightning_ham.runs.provenance import commit, machine
from lightning_ham.runs.publish import push_run
from lightning_ham.runs.recipe.catalog import recipe_name
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.resuming import ResumeError, check_resumable, resuming
from lightning_ham.runs.trackers import EpisodeTable
from lightning_ham.training import EndIfNotFinite, EpisodeCounter
from lightning_ham.training.unused import UnusedOptionsWarning, told

_LOG = logging.getLogger("lightning_ham")
_RUN_DIR_VARIABLE = "LIGHTNING_HAM_RUN_DIR"  # tells processes started by DDP the folder chosen by the first


def train(arguments: Sequence[str], parse: Callable[[Sequence[str]], tuple[Path, RecipeCLI]]) -> int:
    """Train, evaluate, export and publish; return the exit status. Errors are reported in one line.

    Args:
        arguments: A recipe and overrides.
        parse: Returns the recipe's file and the command line built from the arguments.
    """
    quieten()
    with EndOnSignal() as signals, contextlib.ExitStack() as claims:
        try:
            recipe, cli = parse(arguments)
            tracking.check_settings(cli.config.wandb.mode, cli.config.wandb.project, cli.config.wandb.entity)
            choice = _choose(cli, recipe, arguments)
            if choice.checkpoint:
                check_resumable(choice.checkpoint, cli.model)
            known = get_estimator(cli.model.attention).compiled is not None
            set_num_threads(cli.config.threads, compiled=known and cli.model.model.is_compiled)
            counter = EpisodeCounter()
            trainer = _claim(cli, recipe, choice, [counter, signals], claims)
        except BrokenPipeError:  # a reader of the help has closed the pipe
            raise
        except (ImportError, OSError, ValueError) as error:
            print(f"error: {shown(error, LONGEST_MESSAGE)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as error:
            return _say(explain(error, signals, None), error)
        run_dir = Path(cli.config.run_dir)
        os.environ[_RUN_DIR_VARIABLE] = str(run_dir)
        try:
            with output_goes_on():
                started = _start(cli, run_dir, recipe, arguments, choice.checkpoint)
                wandb_url = _train(cli, trainer, started.wandb if started else None, choice.checkpoint)
                if started:
                    _evaluate_and_export(cli, trainer, counter, started, choice.checkpoint, wandb_url)
        except ResumeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except BaseException as error:
            ending = explain(error, signals, Path(cli.config.run_dir), trainer.global_rank)
            return _say(ending, error, aloud=trainer.is_global_zero or (ending is not None and ending.told_by_all))
        finally:
            del os.environ[_RUN_DIR_VARIABLE]
        return _push(cli, run_dir, signals) if started else 0


def _say(ending: Ending | None, error: BaseException, *, aloud: bool = True) -> int:
    """Report an early end, and return the exit status; raise the error if it is unexpected."""
    if ending is None:
        raise error
    if aloud:  # one of several processes speaks for all
        _LOG.info("%s", ending.line)
    return ending.status


def quieten() -> None:
    """Show only our own messages and warnings that a user can act on."""
    logging.basicConfig(format="%(message)s", handlers=[AboveBar()])
    _LOG.setLevel(logging.INFO)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns that its first use takes a minute
    for message in (
        ".*does not have many workers.*",  # episodes are cheaper to draw than to send between processes
        ".*args parameter is intended to run from within Python.*",
        ".*treespec, LeafSpec.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*lr scheduler.*",
        ".*when logging on epoch level in distributed setting.*",  # our errors already cover all processes
    ):
        warnings.filterwarnings("ignore", message)
    warnings.filterwarnings("ignore", category=UnusedOptionsWarning)  # reported below, by the names of keys
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning):  # not for users
        warnings.filterwarnings("ignore", category=category, module="(?!lightning_ham)")


def _choose(cli: RecipeCLI, recipe: Path, arguments: Sequence[str]) -> Choice:
    """Choose the run folder; in a process started by DDP, return the choice of the first process."""
    stem = Path("runs", recipe_name(recipe).replace("/", "-"))
    run_dir = cli.config.run_dir
    is_override = any(argument.partition("=")[0] == "--run_dir" for argument in arguments)
    if os.environ.get("LOCAL_RANK", "0") != "0" and _RUN_DIR_VARIABLE in os.environ:
        run_dir, is_override = os.environ[_RUN_DIR_VARIABLE], True
    return choose(stem, recipe, run_dir, cli.config.ckpt_path, is_override=is_override)


def _claim(
    cli: RecipeCLI, recipe: Path, choice: Choice, callbacks: list[Callback], claims: contextlib.ExitStack
) -> Trainer:
    """Return the Trainer for the first folder that can be claimed; ``claims`` gets the claim.

    With several processes, the first one claims the folder for all.
    """
    for folder in choice.folders:
        cli.config.run_dir = str(folder)
        trainer = _make_trainer(cli, folder, callbacks)
        if not trainer.is_global_zero:
            return trainer
        try:
            claim = claims.enter_context(Claim(folder, must_be_made=not choice.has_name))
        except FileExistsError:
            if choice.has_name or not os.path.lexists(folder):
                raise
            continue  # another process was faster
        claim.check_new(recipe) if choice.is_new else claim.check_resumed()
        return trainer
    raise AssertionError("there is always another name")


def _make_trainer(cli: RecipeCLI, run_dir: Path, callbacks: list[Callback]) -> Trainer:
    """Return the Trainer; it writes nothing before the training begins."""
    checkpoints = [BestCheckpoint(run_dir), LastCheckpoint(run_dir)]
    callbacks = [
        _OneFolder(cli),
        *callbacks,
        EndIfNotFinite(),
        LearningRateMonitor(),
        EpisodeTable(),
        *checkpoints,
    ]
    return cli.make_trainer(run_dir / LAST.parent, [CSVLogger(run_dir, name=METRICS)], callbacks, [WholeCheckpointIO()])


class _OneFolder(Callback):
    """Tells every process the run folder of the first one, which its messages name.

    Processes that another program started, such as torchrun, have each chosen a folder. Only the first one writes.
    """

    def __init__(self, cli: RecipeCLI) -> None:
        self._cli = cli

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._cli.config.run_dir = trainer.strategy.broadcast(self._cli.config.run_dir)


class _Started(NamedTuple):
    """Facts about a run at its start."""

    run_dir: Path
    recipe: str
    command: str
    wandb: WandbLogger | None


@rank_zero_only
def _start(
    cli: RecipeCLI, run_dir: Path, recipe: Path, arguments: Sequence[str], checkpoint: Path | None
) -> _Started | None:
    """Write the recipe and first facts to the run folder, and start (or continue) the run in W&B."""
    resolved = cli.resolved()
    write_whole(run_dir / RECIPE, resolved.encode())
    (run_dir / EVALUATION).unlink(missing_ok=True)  # left by a finished training, which now continues
    name, command = recipe_name(recipe), shlex.join(["python", "-m", "lightning_ham.fit", *arguments])
    earlier = read_json(run_dir / TRAINING) if checkpoint else {}
    if "command" in earlier:  # a resumed run lists the commands of all its parts
        name, command = earlier.get("recipe", name), f"{earlier['command']} && {command}"
    write_json(run_dir / TRAINING, {"recipe": name, "command": command})
    repo_id = cli.config.hub.repo_id
    if repo_id is not None:
        try:
            check_token(repo_id)
        except PermissionError as error:
            _LOG.warning("%s There is time until the training ends.", error)
    verb = "Resuming" if checkpoint else "Training"
    _LOG.info("%s %s, %d parameters, in %s", verb, cli.config.task, cli.model.model.num_parameters, run_dir)
    unused = cli.unused_keys()
    if unused:
        _LOG.warning("%s", told(unused))
    wandb = cli.config.wandb
    logger = tracking.make_logger(
        run_dir, yaml.safe_load(resolved), wandb.mode, wandb.project, wandb.entity, run_dir.absolute().name
    )
    return _Started(run_dir, name, command, logger)


def _train(cli: RecipeCLI, trainer: Trainer, wandb_logger: WandbLogger | None, checkpoint: Path | None) -> str | None:
    """Train, and end the run in W&B; return its address there, if any."""
    if wandb_logger:
        trainer.loggers = [*trainer.loggers, wandb_logger]
    url: str | None = None
    try:
        with resuming(trainer, checkpoint):
            trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    finally:
        if wandb_logger:
            url = wandb_logger.experiment.url  # None if offline
            _LOG.info("%s", tracking.finish(wandb_logger))
    return url


def _evaluate_and_export(
    cli: RecipeCLI,
    trainer: Trainer,
    counter: EpisodeCounter,
    started: _Started,
    checkpoint: Path | None,
    wandb_url: str | None,
) -> None:
    """Evaluate the best checkpoint, write ``evaluation.json`` and ``model/``, and print the error table."""
    run_dir = started.run_dir
    model = best_model(run_dir, checkpoint)
    certify = cli.config_init["certify"]
    if certify.rounds:
        _certify(model, certify)
    options = cli.config.evaluation
    evaluation = evaluate(model, options.lengths, options.episodes, options.seed)
    evaluation["weights_sha256"] = model.weights_sha256()
    training: TrainingInfo = {
        "recipe": started.recipe,
        "command": started.command,
        "seed": cli.config.seed_everything,
        "updates": trainer.global_step,
        "episodes": counter.episodes,
        "seconds": round(counter.seconds, 1),
        "machine": machine(model.device),
        "versions": describe_versions(),
        "commit": commit(),
        "wandb_url": wandb_url,
        "curve": read_curve(run_dir),
        "hyper_parameters": yaml.safe_load(cli.resolved()),
        "bar": dict(cli.config.stop.errors or {}),
    }
    write_json(run_dir / TRAINING, training)
    pictures = card_pictures(model, training["curve"])
    model.save_pretrained(run_dir / MODEL, evaluation=evaluation, training=training, pictures=pictures)
    write_json(run_dir / EVALUATION, evaluation)  # last, as it means that the run is complete
    print(table(evaluation))
    missed = missed_bar(training["bar"], evaluation, training["curve"])
    if missed:
        _LOG.info("%s", commands.retry(run_dir, missed, training["bar"], training["seed"], _longer(cli, trainer)))
    _LOG.info("Trained in %.0f s. The model is in %s", training["seconds"], run_dir / MODEL)
    _LOG.info("%s", commands.use(run_dir))


def _certify(model: TrainedModel, options: ConsolidationOptions) -> None:
    """Train the model until it is certified, and say so, or why it is not; in this case it is as it was."""
    _, controller = structure_of(model)
    before, grid = copy.deepcopy(model.state_dict()), controller.memory.grid
    outcome = consolidate(model, options, lambda found: _LOG.info("%s", found))
    _LOG.info("%s", outcome)
    if isinstance(outcome, Certificate):
        model.certificate = outcome
    else:
        model.load_state_dict(before)
        controller.memory.grid = grid


def _longer(cli: RecipeCLI, trainer: Trainer) -> str:
    """Return the option that lets a finished training continue: it relaxes the limit that was reached."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    if epochs is not None and 0 < epochs <= trainer.current_epoch:
        return f"--trainer.max_epochs={2 * epochs}"
    if 0 < steps <= trainer.global_step:
        return f"--trainer.max_steps={2 * steps}"
    if cli.config.trainer.max_time is not None:
        return "--trainer.max_time=null"
    return f"--stop.patience={2 * cli.config.stop.patience}"


def _push(cli: RecipeCLI, run_dir: Path, signals: EndOnSignal) -> int:
    """Publish the model if the recipe says so; return the exit status. A failed push is only a warning."""
    options = cli.config.hub
    if options.repo_id is None:
        return 0
    command = commands.command("push", run_dir, options.repo_id, *(["--private"] if options.private else []))
    failed = "The model is trained and saved, but not pushed: %s Push it later with: %s"
    try:
        push_run(run_dir, options.repo_id, private=options.private or None)
    except KeyboardInterrupt:
        _LOG.warning(failed, "interrupted.", command)
        return signals.status
    except (OSError, ValueError) as error:
        _LOG.warning(failed, error, command)
    return 0
