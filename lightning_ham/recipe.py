"""Recipes: how one is found, read, checked and turned into what trains.

A recipe is a YAML file for Lightning's own command line (jsonargparse): the arguments of the module, the data, the
Trainer and a few callbacks, each under its own key. It may name classes by ``class_path``: a recipe is code, so use
only those you trust.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger

from lightning_ham.progress import make_progress
from lightning_ham.training import HAMModule, LengthCurriculum, StopAtErrors, TaskDataModule

_PACKAGE = Path(__file__).parent
RECIPES = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"
"""The shipped recipes: inside the package when installed from a wheel, beside it in a checkout."""


@dataclasses.dataclass
class WandbOptions:
    """Where the run is logged in Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """``auto``: as WANDB_MODE says, else online if there is an API key, else offline. Never asks."""
    project: str = "lightning-ham"
    """Project that the run belongs to."""
    entity: str | None = None
    """Team or user that owns it; the account's default if null."""


@dataclasses.dataclass
class EvaluationOptions:
    """The evaluation after training (the paper's protocol)."""

    lengths: list[tuple[int, int]] = dataclasses.field(default_factory=lambda: [(1, 32), (33, 128)])
    """Ranges of lengths, each in the smallest tree that holds its longest."""
    episodes: int = 2500
    """Fresh episodes for each range."""
    seed: int = 0
    """Seed of these episodes."""


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def find_recipe(name_or_path: str) -> Path:
    """Return the file of a recipe given as a path or as the name of a shipped one, such as ``merge``.

    Raises:
        FileNotFoundError: If there is neither; the message names the closest match.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = RECIPES / f"{name_or_path}.yaml"
    if path.suffix not in {".yaml", ".yml"} and shipped.is_file():
        return shipped
    names = recipe_names()
    raise FileNotFoundError(
        f"Expected a recipe, but got {name_or_path!r}, which is neither a file nor a shipped recipe;"
        f"{_did_you_mean(path.stem, names)} shipped: {', '.join(names)}."
    )


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" did you mean {close[0]!r}?" if close else ""


_TRAINER_DEFAULTS = {
    "devices": 1,
    "max_epochs": 200,
    "gradient_clip_val": 1.0,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}


class RecipeParser(LightningArgumentParser):
    """A parser whose complaint is one line that names the closest valid key."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` in one line and exit with status 2."""
        sys.stderr.write(f"error: {self._one_line(message)}\n")
        sys.exit(2)

    def _one_line(self, message: str) -> str:
        unknown = re.search(r"Key '([^']+)' is not expected|[Uu]nrecognized arguments?: --([\w.]+)", message)
        if unknown:
            key = unknown[1] or unknown[2]
            return f"Unknown key {key!r} in the recipe or on the command line;{self._closest(key)}"
        lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
        return "; ".join(lines)

    def _closest(self, key: str) -> str:
        known = [action.dest for action in self._actions if action.dest not in {"help", "config", "print_config"}]
        hint = _did_you_mean(key, known) or _did_you_mean(key.rsplit(".", 1)[-1], {k.rsplit(".", 1)[-1] for k in known})
        return hint or " see --help for those there are."


class RecipeCLI(LightningCLI):
    """Lightning's command line, for recipes: ``RECIPE [--dotted.override value ...]``."""

    def __init__(self, recipe: Path | None, overrides: Sequence[str]) -> None:
        config = [] if recipe is None else ["--config", str(recipe)]
        super().__init__(
            HAMModule,
            TaskDataModule,
            save_config_callback=None,
            seed_everything_default=1,
            parser_class=RecipeParser,
            parser_kwargs={
                "prog": "python -m lightning_ham.fit",
                "usage": "python -m lightning_ham.fit RECIPE [--dotted.override value ...]",
                "description": "Train a model from a recipe; every key of it is an option, e.g. --data.batch_size 64.",
            },
            args=[*config, *overrides],
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer | None:  # type: ignore[override]
        """Leave the Trainer for :meth:`make_trainer`: its loggers need the run folder."""
        return None

    def make_trainer(self, logger: list[Logger], callbacks: list[Callback]) -> Trainer:
        """Return the recipe's Trainer with ``logger``, and with ``callbacks`` beside the recipe's own."""
        arguments = dict(self.config_init["trainer"])
        own = arguments.pop("callbacks") or []
        own = own if isinstance(own, list) else [own]
        bar = arguments["enable_progress_bar"]
        progress = make_progress(sys.stdout.isatty() if bar is None else bar)
        arguments["enable_progress_bar"] = isinstance(progress, ProgressBar)
        built = [self.config_init["curriculum"], self.config_init["stop"]]
        average = EMAWeightAveraging(decay=self.config_init["weight_average"])
        return Trainer(**{**arguments, "logger": logger, "callbacks": [*own, *built, average, *callbacks, progress]})

    def resolved(self) -> str:
        """Return the recipe with every key and override, as YAML that can be trained again."""
        config = self.config.clone()
        config.pop("config", None)
        config["ckpt_path"] = None
        return self.parser.dump(config, skip_none=True)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a recipe can say: what is ours first, the Trainer's many options last."""
        parser.add_argument("--task", type=str, required=True, help="Name of the task, for the model and the data.")
        parser.add_argument("--threads", type=int, default=2, help="CPU threads that torch uses.")
        parser.add_argument("--run_dir", type=str | None, default=None, help="Run folder; a new one in runs/ if null.")
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Checkpoint to resume, or 'last': that of this recipe's newest run folder (or of --run_dir).",
        )
        parser.add_argument(
            "--weight_average",
            type=float,
            default=0.99,
            help="Decay per update of the averaged weights, which are those that are validated and kept.",
        )
        parser.add_lightning_class_args(HAMModule, "model")
        parser.add_lightning_class_args(TaskDataModule, "data")
        parser.add_lightning_class_args(LengthCurriculum, "curriculum")
        parser.add_lightning_class_args(StopAtErrors, "stop")
        parser.add_argument("--wandb", type=WandbOptions, default=WandbOptions())
        parser.add_argument("--evaluation", type=EvaluationOptions, default=EvaluationOptions())
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in _TRAINER_DEFAULTS.items()})
        for key in ("model.task", "data.task"):
            parser.link_arguments("task", key)
        for key in ("model.seed", "data.seed"):
            parser.link_arguments("seed_everything", key, compute_fn=int)
