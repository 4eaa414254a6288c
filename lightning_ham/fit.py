"""Train a model from a recipe: ``python -m lightning_ham.fit RECIPE [--dotted.override value ...]``.

RECIPE is a file or the name of a shipped recipe. The run folder (``runs/<recipe>``, unless ``--run_dir`` says
otherwise) gets ``recipe.yaml`` (resolved), ``checkpoints/{best,last}.ckpt``, ``metrics/``, ``evaluation.json`` and
``model/``, which :func:`lightning_ham.from_pretrained` loads.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from lightning_ham import tracking
from lightning_ham.command_line import run
from lightning_ham.controllers import get_num_threads, set_num_threads
from lightning_ham.hub.card import TrainingInfo
from lightning_ham.hub.pretrained import HAMModel
from lightning_ham.hub.push import check_token
from lightning_ham.learning_curve import read_curve
from lightning_ham.pictures import card_pictures
from lightning_ham.push import push_run
from lightning_ham.recipe import RecipeCLI, find_recipe, recipe_name, recipe_names, without_markup
from lightning_ham.run_folder import EVALUATION, LAST, RECIPE, TRAINING
from lightning_ham.training import EpisodeCounter, HAMModule
from lightning_ham.training.evaluation import describe_machine, describe_versions, evaluate, table

_LOG = logging.getLogger("lightning_ham")
_RUN_DIR_VARIABLE = "LIGHTNING_HAM_RUN_DIR"  # tells the processes that DDP starts which folder the first one chose


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate and export; return the exit status. See the module's docstring."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _quieten()
    try:
        recipe, cli = _parse(arguments)
        run_dir, checkpoint = _run_folder(cli, recipe)
        if checkpoint:
            _check_checkpoint(cli, checkpoint)
        hard = cli.model.attention != "soft"
        set_num_threads(cli.config.threads, compiled=hard and cli.model.model.is_compiled)
        counter = EpisodeCounter()
        trainer = _make_trainer(cli, run_dir, counter)
        run_dir.mkdir(parents=True, exist_ok=True)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    os.environ[_RUN_DIR_VARIABLE] = str(run_dir)
    try:
        wandb_url = _train(cli, trainer, _start(cli, run_dir, recipe, arguments, checkpoint), checkpoint)
        if trainer.is_global_zero:
            _evaluate_and_export(cli, trainer, counter, run_dir, checkpoint, wandb_url)
    except (KeyboardInterrupt, SystemExit):  # the latter is how Lightning ends on Ctrl-C
        if (run_dir / LAST).exists() and trainer.is_global_zero:
            resume = [_python(), "-m", "lightning_ham.fit", str(run_dir / RECIPE), "--ckpt_path", "last"]
            _LOG.info("Interrupted. Resume with: %s", shlex.join(resume))
        return 130
    finally:
        del os.environ[_RUN_DIR_VARIABLE]
    return _push(cli, run_dir) if trainer.is_global_zero else 0


def _python() -> str:
    """Return how to call this Python from a shell; the one of an environment may not be on the path."""
    return "python" if shutil.which("python") == sys.executable else sys.executable


def _quieten() -> None:
    """Leave the terminal to our own messages and to warnings that a user can act on."""
    logging.basicConfig(format="%(message)s")
    _LOG.setLevel(logging.INFO)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of the minute that its first use takes
    for message in (
        ".*does not have many workers.*",  # episodes are cheaper to draw than to send between processes
        ".*args parameter is intended to run from within Python.*",
        ".*treespec, LeafSpec.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*lr scheduler.*",
        ".*when logging on epoch level in distributed setting.*",  # our errors are those of all processes already
    ):
        warnings.filterwarnings("ignore", message)


def _parse(arguments: Sequence[str]) -> tuple[Path, RecipeCLI]:
    """Return the recipe's file and the command line built from it and the overrides."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(without_markup(__doc__))
        print(
            textwrap.fill(f"Shipped recipes: {', '.join(recipe_names())}", 100, break_on_hyphens=False) + "\n",
            flush=True,
        )
        RecipeCLI(None, ["--help"])
    if arguments[0].startswith("-"):
        raise ValueError(f"Expected a recipe first and options after it, but got {arguments[0]!r}.")
    recipe = find_recipe(arguments[0])
    return recipe, RecipeCLI(recipe, arguments[1:])


def _run_folder(cli: RecipeCLI, recipe: Path) -> tuple[Path, Path | None]:
    """Return the run folder, new or to be resumed, and the checkpoint to resume from; nothing is written yet.

    Raises:
        FileNotFoundError: If there is nothing to resume.
        FileExistsError: If something stands where a new run was asked for.
    """
    config = cli.config
    asked_for = Path(config.run_dir) if config.run_dir else None
    stem = Path("runs", recipe_name(recipe).replace("/", "-"))
    checkpoint = None
    if _RUN_DIR_VARIABLE in os.environ:
        run_dir = Path(os.environ[_RUN_DIR_VARIABLE])
        if config.ckpt_path:
            checkpoint = run_dir / LAST if config.ckpt_path == "last" else Path(config.ckpt_path)
    elif config.ckpt_path is None:
        run_dir = asked_for or _first_free(stem)
        if (run_dir / LAST).exists():
            raise FileExistsError(
                f"Expected a new run folder, but {run_dir} holds a run; resume it with --ckpt_path last, "
                "or choose another --run_dir."
            )
    elif config.ckpt_path == "last":
        candidates = [asked_for] if asked_for else [stem, *stem.parent.glob(f"{stem.name}-*")]
        runs = [folder for folder in candidates if (folder / LAST).exists()]
        if not runs:
            raise FileNotFoundError(f"Expected a run to resume, but {candidates[0] / LAST} does not exist.")
        run_dir = max(runs, key=lambda folder: (folder / LAST).stat().st_mtime)
        checkpoint = run_dir / LAST
    else:
        checkpoint = Path(config.ckpt_path)
        if not checkpoint.is_file():
            raise FileNotFoundError(f"Expected a checkpoint or 'last' for --ckpt_path, but got {checkpoint}.")
        of_a_run = checkpoint.parent.name == LAST.parent.name
        run_dir = asked_for or (checkpoint.parent.parent if of_a_run else _first_free(stem))
    if run_dir.exists() and not run_dir.is_dir():
        raise FileExistsError(f"Expected a folder for --run_dir, but {run_dir} is a file.")
    config.run_dir = str(run_dir)
    return run_dir, checkpoint


def _check_checkpoint(cli: RecipeCLI, checkpoint: Path) -> None:
    """Raise a ValueError unless a checkpoint is whole, plain data and of the recipe's model."""
    HAMModel.from_checkpoint(checkpoint)
    saved = HAMModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    ours = cli.model
    shapes, expected = ({name: value.shape for name, value in m.state_dict().items()} for m in (saved, ours))
    if saved.hparams["task"] != ours.hparams["task"] or shapes != expected:
        raise ValueError(
            f"Expected a checkpoint of the recipe's model, but {checkpoint} holds another one; "
            f"resume it with the recipe.yaml of its run."
        )


def _first_free(stem: Path) -> Path:
    number = 2
    folder = stem
    while folder.exists():
        folder = stem.with_name(f"{stem.name}-{number}")
        number += 1
    return folder


class _LatestBest(ModelCheckpoint):
    """Keeps the checkpoint with the lowest error; of those without any, the one that has been trained longest."""

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return equal or super().check_monitor_top_k(trainer, current)


class _KeepLast(Checkpoint):
    """Makes a run resumable from its very first step, and from every epoch.

    Not ModelCheckpoint's ``save_last``, which saves only where the best checkpoint is saved as well.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.strategy.broadcast(self.path.exists()):
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)


class _AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the one that it replaces: a run that is killed meanwhile keeps that one.

    Lightning itself writes to the system's folder for temporary files, which may be on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        partial = f"{path}.partial"
        super().save_checkpoint(checkpoint, partial, storage_options)
        Path(partial).replace(path)


def _make_trainer(cli: RecipeCLI, run_dir: Path, counter: EpisodeCounter) -> Trainer:
    """Return the Trainer, which writes nothing before its training begins."""
    best = _LatestBest(
        run_dir / LAST.parent,
        "best",
        monitor="val/score",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    callbacks = [counter, LearningRateMonitor(), tracking.EpisodeTable(), best, _KeepLast(run_dir / LAST)]
    return cli.make_trainer([CSVLogger(run_dir, name="metrics")], callbacks, [_AtomicCheckpointIO()])


@rank_zero_only
def _start(
    cli: RecipeCLI, run_dir: Path, recipe: Path, arguments: Sequence[str], checkpoint: Path | None
) -> WandbLogger | None:
    """Write what is known of the run before it begins, and start (or continue) it in W&B."""
    resolved = cli.resolved()
    (run_dir / RECIPE).write_text(resolved)
    (run_dir / EVALUATION).unlink(missing_ok=True)  # of a training that has ended, and is now gone on with
    training = run_dir / TRAINING
    name, command = recipe_name(recipe), shlex.join(["python", "-m", "lightning_ham.fit", *arguments])
    if checkpoint and training.is_file():  # a resumed run has the commands of all its parts
        earlier = json.loads(training.read_text())
        name, command = earlier["recipe"], f"{earlier['command']} && {command}"
    training.write_text(json.dumps({"recipe": name, "command": command}, indent=2) + "\n")
    repo_id = cli.config.hub.repo_id
    if repo_id is not None:
        try:
            check_token(repo_id)
        except PermissionError as error:
            _LOG.warning("%s There is time until the training ends.", error)
    verb = "Resuming" if checkpoint else "Training"
    _LOG.info("%s %s, %d parameters, in %s", verb, cli.config.task, cli.model.model.num_parameters, run_dir)
    wandb = cli.config.wandb
    return tracking.make_logger(
        run_dir, yaml.safe_load(resolved), wandb.mode, wandb.project, wandb.entity, run_dir.name
    )


def _train(cli: RecipeCLI, trainer: Trainer, wandb_logger: WandbLogger | None, checkpoint: Path | None) -> str | None:
    """Train to the end, and end the run in W&B; return where it is to be seen there, if it is."""
    if wandb_logger:
        trainer.loggers = [*trainer.loggers, wandb_logger]
    url: str | None = None
    try:
        trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    finally:
        if wandb_logger:
            url = wandb_logger.experiment.url  # offline there is none
            _LOG.info("%s", tracking.finish(wandb_logger))
    return url


def _evaluate_and_export(
    cli: RecipeCLI,
    trainer: Trainer,
    counter: EpisodeCounter,
    run_dir: Path,
    checkpoint: Path | None,
    wandb_url: str | None,
) -> None:
    """Evaluate the best checkpoint, write ``evaluation.json`` and ``model/``, and print the error table."""
    # There is no best one without validation, and none at all if ``checkpoint`` had no epoch left to train.
    candidates = (run_dir / LAST.with_name("best.ckpt"), run_dir / LAST, checkpoint)
    model = HAMModel.from_checkpoint(next(path for path in candidates if path and path.exists()))
    options = cli.config.evaluation
    evaluation = evaluate(model, options.lengths, options.episodes, options.seed)
    evaluation["weights_sha256"] = model.weights_sha256()
    started = json.loads((run_dir / TRAINING).read_text())
    training: TrainingInfo = {
        "recipe": started["recipe"],
        "command": started["command"],
        "seed": cli.config.seed_everything,
        "updates": trainer.global_step,
        "episodes": counter.episodes,
        "seconds": round(counter.seconds, 1),
        "machine": _machine(model.device),
        "versions": describe_versions(),
        "commit": _commit(),
        "wandb_url": wandb_url,
        "curve": read_curve(run_dir),
        "hyper_parameters": yaml.safe_load(cli.resolved()),
    }
    (run_dir / TRAINING).write_text(json.dumps(training, indent=2) + "\n")
    pictures = card_pictures(model, training["curve"])
    model.save(run_dir / "model", evaluation=evaluation, training=training, pictures=pictures)
    partial = run_dir / f"{EVALUATION}.partial"  # last, and whole: it says that all is done
    partial.write_text(json.dumps(evaluation, indent=2) + "\n")
    partial.replace(run_dir / EVALUATION)
    print(table(evaluation))
    _LOG.info("Trained in %.0f s. The model is in %s", training["seconds"], run_dir / "model")


def _push(cli: RecipeCLI, run_dir: Path) -> int:
    """Publish the model where the recipe says so; return the exit status. A run that cannot be pushed is no failure."""
    options = cli.config.hub
    if options.repo_id is None:
        return 0
    command = [_python(), "-m", "lightning_ham.push", str(run_dir), options.repo_id]
    command += ["--private"] if options.private else []
    failed = "The model is trained and saved, but not pushed: %s Push it later with: %s"
    try:
        push_run(run_dir, options.repo_id, private=options.private or None)
    except KeyboardInterrupt:
        _LOG.warning(failed, "interrupted.", shlex.join(command))
        return 130
    except (OSError, ValueError) as error:
        _LOG.warning(failed, error, shlex.join(command))
    return 0


def _machine(device: torch.device) -> str:
    machine = describe_machine(device)
    threads = f"{get_num_threads()} of {machine['cores']} cores" if device.type == "cpu" else machine["device"]
    return f"{machine['processor']}, {threads}, {machine['platform']}"


def _commit() -> str | None:
    """Return the commit of the checkout that this is, None where it is none or git is not there."""
    checkout = Path(__file__).parent.parent
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    run(main)
