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
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger

from lightning_ham import tracking
from lightning_ham.hub.card import TrainingInfo
from lightning_ham.hub.pretrained import HAMModel
from lightning_ham.recipe import RecipeCLI, find_recipe, recipe_names
from lightning_ham.training import EpisodeCounter
from lightning_ham.training.evaluation import check_lengths, describe_machine, evaluate, table

_LOG = logging.getLogger("lightning_ham")
_LAST = Path("checkpoints", "last.ckpt")
_RUN_DIR_VARIABLE = "LIGHTNING_HAM_RUN_DIR"  # tells the processes that DDP starts which folder the first one chose


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate and export; see the module's docstring."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _quieten()
    try:
        recipe, cli = _parse(arguments)
        check_lengths(cli.datamodule.task, cli.config.evaluation.lengths)
        run_dir, checkpoint = _run_folder(cli, recipe)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    torch.set_num_threads(cli.config.threads)
    trainer, counter = _train(cli, run_dir, checkpoint)
    if trainer.is_global_zero:
        _evaluate_and_export(cli, trainer, counter, run_dir, recipe, arguments)


def _quieten() -> None:
    """Leave the terminal to our own messages and to warnings that a user can act on."""
    logging.basicConfig(format="%(message)s")
    _LOG.setLevel(logging.INFO)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # episodes are cheaper to draw than to send between processes
        ".*args parameter is intended to run from within Python.*",
        ".*treespec, LeafSpec.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*lr scheduler.*",
    ):
        warnings.filterwarnings("ignore", message)


def _parse(arguments: Sequence[str]) -> tuple[Path, RecipeCLI]:
    """Return the recipe's file and the command line built from it and the overrides."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(__doc__)
        print(f"Shipped recipes: {', '.join(recipe_names())}\n", flush=True)
        RecipeCLI(None, ["--help"])
    if arguments[0].startswith("-"):
        raise ValueError(f"Expected a recipe first and options after it, but got {arguments[0]!r}.")
    recipe = find_recipe(arguments[0])
    return recipe, RecipeCLI(recipe, arguments[1:])


def _run_folder(cli: RecipeCLI, recipe: Path) -> tuple[Path, Path | None]:
    """Return the run folder, new or to be resumed, and the checkpoint to resume from.

    Raises:
        FileNotFoundError: If there is nothing to resume.
        FileExistsError: If a run stands where a new one was asked for.
    """
    config = cli.config
    if _RUN_DIR_VARIABLE in os.environ:
        run_dir, checkpoint = Path(os.environ[_RUN_DIR_VARIABLE]), config.ckpt_path and Path(config.ckpt_path)
        return run_dir, run_dir / _LAST if config.ckpt_path == "last" else checkpoint
    stem = Path("runs", recipe.stem)
    if config.ckpt_path is None:
        run_dir = Path(config.run_dir) if config.run_dir else _first_free(stem)
        if (run_dir / _LAST).exists():
            raise FileExistsError(
                f"Expected a new run folder, but {run_dir} holds a run; resume it with --ckpt_path last, "
                "or choose another --run_dir."
            )
        checkpoint = None
    elif config.ckpt_path == "last":
        candidates = [Path(config.run_dir)] if config.run_dir else [stem, *stem.parent.glob(f"{stem.name}-*")]
        runs = [folder for folder in candidates if (folder / _LAST).exists()]
        if not runs:
            raise FileNotFoundError(f"Expected a run to resume, but {candidates[0] / _LAST} does not exist.")
        run_dir = max(runs, key=lambda folder: (folder / _LAST).stat().st_mtime)
        checkpoint = run_dir / _LAST
    else:
        checkpoint = Path(config.ckpt_path)
        if not checkpoint.is_file():
            raise FileNotFoundError(f"Expected a checkpoint or 'last' for --ckpt_path, but got {checkpoint}.")
        run_dir = Path(config.run_dir) if config.run_dir else checkpoint.parent.parent
    run_dir.mkdir(parents=True, exist_ok=True)
    config.run_dir = str(run_dir)
    os.environ[_RUN_DIR_VARIABLE] = str(run_dir)
    return run_dir, checkpoint


def _first_free(stem: Path) -> Path:
    number = 2
    folder = stem
    while folder.exists():
        folder = stem.with_name(f"{stem.name}-{number}")
        number += 1
    return folder


class _SaveAtStart(Callback):
    """Makes a run resumable from its very first step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.path.exists():
            trainer.save_checkpoint(self.path)


def _train(cli: RecipeCLI, run_dir: Path, checkpoint: Path | None) -> tuple[Trainer, EpisodeCounter]:
    """Train to the end; on Ctrl-C say how to resume, and exit with status 130."""
    resolved = cli.resolved()
    (run_dir / "recipe.yaml").write_text(resolved)
    wandb = cli.config.wandb
    wandb_logger = tracking.make_logger(
        run_dir, yaml.safe_load(resolved), wandb.mode, wandb.project, wandb.entity, run_dir.name
    )
    loggers: list[Logger] = [CSVLogger(run_dir, name="metrics")]
    counter = EpisodeCounter()
    callbacks: list[Callback] = [counter, LearningRateMonitor()]
    if wandb_logger:
        loggers.append(wandb_logger)
        callbacks.append(tracking.EpisodeTable(wandb_logger))
    best = ModelCheckpoint(
        run_dir / _LAST.parent,
        "best",
        monitor="val/score",
        save_last=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    trainer = cli.make_trainer(loggers, [*callbacks, _SaveAtStart(run_dir / _LAST), best])
    verb = "Resuming" if checkpoint else "Training"
    _LOG.info("%s %s, %d parameters, in %s", verb, cli.config.task, cli.model.model.num_parameters, run_dir)
    try:
        trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # how Lightning ends on Ctrl-C
        resume = ["python", "-m", "lightning_ham.fit", str(run_dir / "recipe.yaml"), "--ckpt_path", "last"]
        _LOG.info("Interrupted. Resume with: %s", shlex.join(resume))
        raise SystemExit(130) from None
    finally:
        if wandb_logger and trainer.is_global_zero:
            _LOG.info("%s", tracking.finish(wandb_logger))
    return trainer, counter


def _evaluate_and_export(
    cli: RecipeCLI, trainer: Trainer, counter: EpisodeCounter, run_dir: Path, recipe: Path, arguments: Sequence[str]
) -> None:
    """Evaluate the best checkpoint, write ``evaluation.json`` and ``model/``, and print the error table."""
    best = run_dir / _LAST.with_name("best.ckpt")  # not there if no epoch was validated
    model = HAMModel.from_checkpoint(best if best.exists() else run_dir / _LAST)
    options = cli.config.evaluation
    evaluation = evaluate(model, options.lengths, options.episodes, options.seed)
    (run_dir / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
    training: TrainingInfo = {
        "recipe": recipe.stem,
        "command": shlex.join(["python", "-m", "lightning_ham.fit", *arguments]),
        "seed": cli.config.seed_everything,
        "updates": trainer.global_step,
        "episodes": counter.episodes,
        "seconds": round(counter.seconds, 1),
        "machine": ", ".join(map(str, describe_machine(model.device).values())),
        "hyper_parameters": {
            key: value for key, value in yaml.safe_load(cli.resolved()).items() if key not in {"run_dir", "wandb"}
        },
    }
    (run_dir / "training.json").write_text(json.dumps(training, indent=2) + "\n")
    model.save(run_dir / "model", evaluation=evaluation, training=training)
    print(table(evaluation))
    _LOG.info("Trained in %.0f s. The model is in %s", training["seconds"], run_dir / "model")


if __name__ == "__main__":
    main()
