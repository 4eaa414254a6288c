"""Recipes: how one is found, read, checked and turned into what trains.

A recipe is a YAML file for Lightning's own command line (jsonargparse): the arguments of the module, the data, the
Trainer and a few callbacks, each under its own key. It may name classes by ``class_path``: a recipe is code, so use
only those you trust.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
import yaml
from jsonargparse import set_parsing_settings
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from lightning_ham.controllers import complete_options
from lightning_ham.foreign import LONGEST_MESSAGE, shown
from lightning_ham.hub.config import make_config
from lightning_ham.hub.push import check_name
from lightning_ham.models import TaskModel
from lightning_ham.progress import make_progress
from lightning_ham.recipe_values import RECIPE_VALUES
from lightning_ham.tasks import Lengths
from lightning_ham.training import (
    BreakUpGuard,
    HAMModule,
    LengthCurriculum,
    MovingAverage,
    ReinforceOptions,
    StopAtErrors,
    TaskDataModule,
)
from lightning_ham.training.evaluation import check_lengths, episodes_per_range

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

    lengths: list[Lengths] = dataclasses.field(default_factory=lambda: [Lengths(1, 32), Lengths(33, 128)])
    """Ranges of lengths, each in the smallest tree that holds its longest."""
    episodes: int | list[int] = 2500
    """Fresh episodes for each range; a list has a number for each of them."""
    seed: int = 0
    """Seed of these episodes."""


@dataclasses.dataclass
class HubOptions:
    """Where on the Hugging Face Hub the model is published when it is trained; nowhere if there is no name."""

    repo_id: str | None = None
    """``organisation/name``; made if it is not there. Pushes with the token of `hf auth login` or HF_TOKEN."""
    private: bool = False
    """Show it to its owners only, if it is made now."""


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, sorted, those in folders after the others."""
    names = (path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))
    return sorted(names, key=lambda name: (name.count("/"), name))


def recipe_name(path: Path) -> str:
    """Return what a recipe is called: a shipped one as it is found by, such as ``paper/sort``, others by their file."""
    if path.resolve().is_relative_to(RECIPES.resolve()):
        return path.resolve().relative_to(RECIPES.resolve()).with_suffix("").as_posix()
    return path.stem


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
_NOT_IN_RECIPES = {  # would change nothing here, or break the run folder or the streams of episodes
    "barebones",
    "default_root_dir",
    "enable_checkpointing",
    "fast_dev_run",
    "inference_mode",
    "limit_predict_batches",
    "limit_test_batches",
    "logger",
    "model_registry",
    "overfit_batches",
    "use_distributed_sampler",
}
_LINKED = ("model.task", "data.task", "model.seed", "data.seed")


class RecipeParser(LightningArgumentParser):
    """A parser whose complaint is one line that names the closest valid key."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` in one line and exit with status 2."""
        sys.stderr.write(f"error: {shown(self._one_line(message), LONGEST_MESSAGE)}\n")
        sys.exit(2)

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the help without the markup of docstrings."""
        return without_markup(super().format_help(formatter))

    def check_file(self, path: Path) -> None:
        """Raise a ValueError unless a recipe is a mapping with valid keys.

        The parser itself ignores some keys that it does not know, and names others without their group.
        """
        try:
            recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"Expected {path} to be YAML, but got: {error}") from error
        if not isinstance(recipe, Mapping):
            raise ValueError(f"Expected {path} to hold keys and values, but got {recipe!r}.")
        for key in self._unknown_keys(recipe):
            raise ValueError(self._unknown(key))

    def _unknown_keys(self, section: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
        known = self._known_keys()
        for name, value in section.items():
            key = f"{prefix}{name}"
            if any(other.startswith(f"{key}.") for other in known):
                if isinstance(value, Mapping):
                    yield from self._unknown_keys(value, f"{key}.")
                elif value is not None:
                    raise ValueError(f"Expected key {key!r} to hold keys of its own, but got {value!r}.")
            elif key not in known:
                yield key

    def _known_keys(self) -> set[str]:
        hidden = {"help", "config", "print_config", *_LINKED}
        known = {action.dest for action in self._actions if not action.dest.endswith(".help")} - hidden
        known |= {f"model.reinforce.{field.name}" for field in dataclasses.fields(ReinforceOptions)}
        return {key for key in known if not any(other.startswith(f"{key}.") for other in known)}

    def _one_line(self, message: str) -> str:
        """Say in one line what jsonargparse says in many."""
        unknown = re.search(r"(?:[Uu]nrecognized arguments: --|[Oo]ption ')([\w.]+)", message)
        if unknown:
            return self._unknown(unknown[1])
        key = re.search(r'Parser key "([\w.]+)"', message)
        unfit = re.search(r"Not of type \w+: (.*)", message)
        if key and unfit:  # what our own type says of a value
            return f"Key {key[1]!r}: {unfit[1]}."
        value = re.search(r"(?:Got value: |Given value: |Unable to load config )(.*)$", message, re.MULTILINE)
        if key and value:
            missing = re.search(r"Problem with given class_path '.*':\s*(.*)", message)
            expected = f"name a class that there is ({missing[1]})" if missing else f"be {_expected(message)}"
            return f"Expected key {key[1]!r} to {expected}, but got {value[1].strip(repr(''))!r}."
        return "; ".join(line.strip(" -") for line in message.splitlines() if line.strip(" -"))

    def _unknown(self, key: str) -> str:
        known = sorted(self._known_keys())
        groups = {name.partition(".")[0] for name in known}
        by_name = {name.rpartition(".")[2]: name for name in known}
        name = key.rpartition(".")[2]
        close = [by_name[name]] if name in by_name else difflib.get_close_matches(key, [*known, *groups], n=1)
        if not close:  # a mistyped name, in no group or in a wrong one
            close = [by_name[match] for match in difflib.get_close_matches(name, by_name, n=1)]
        hint = f"did you mean {close[0]!r}?" if close else "see --help for those there are."
        return f"Unknown key {key!r} in the recipe or on the command line; {hint}"


def _expected(message: str) -> str:
    """Say which values of YAML the types in a message stand for."""
    names = {"int": "an integer", "float": "a number", "str": "a string", "bool": "true or false", "list": "a list"}
    names |= {"NoneType": "null", "dict": "a mapping"}
    kinds = []
    for kind in re.findall(r"Expected an? ([^\n]+?)(?:\. Got value: .*)?$", message, re.MULTILINE):
        plain = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind)
        choices = re.fullmatch(r"typing\.Literal\[(.*)\]", plain)
        if choices:
            kinds.append(f"one of {choices[1]}")
        elif not plain.startswith(("path ", "dot import path ")):  # other ways to give a mapping
            kinds.append(names.get(plain, f"a {plain}"))
    if "Unable to load config" in message or "dot import path" in message:
        kinds.insert(0, "a mapping")
    return " or ".join(dict.fromkeys(kinds))


def without_markup(text: str) -> str:
    """Return a docstring's text as a terminal should show it.

    >>> without_markup(":class:`~lightning_ham.training.TaskDataModule` or ``null``")
    'TaskDataModule or null'
    """
    names = re.sub(r":\w+:`([^`]*)`", lambda match: "".join(match[1].split()).rpartition(".")[2], text)
    return names.replace("``", "")


def _as_list(value: Any) -> list[Any]:
    """Return what a recipe may give as nothing, one or many."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


class RecipeCLI(LightningCLI):
    """Lightning's command line, for recipes: ``RECIPE [--dotted.override value ...]``."""

    def __init__(self, recipe: Path | None, overrides: Sequence[str]) -> None:
        self._recipe = recipe
        # To find the docstrings of attributes takes time, and only the help shows them.
        wants_help = any(override == "-h" or override.endswith("help") for override in overrides)
        set_parsing_settings(docstring_parse_attribute_docstrings=wants_help)
        config = [] if recipe is None else ["--config", str(recipe)]
        super().__init__(
            HAMModule,
            TaskDataModule,
            save_config_callback=None,
            seed_everything_default=1,
            parser_class=RecipeParser,
            parser_kwargs={
                "prog": "python -m lightning_ham.fit",
                "allow_abbrev": False,
                "parser_mode": RECIPE_VALUES,
                "usage": "python -m lightning_ham.fit RECIPE [--dotted.override value ...]",
                "description": "Train a model from a recipe; every key of it is an option, e.g. --data.batch_size 64.",
            },
            args=[*config, *overrides],
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Check the recipe's keys, then parse it and what overrides it."""
        if self._recipe is not None and isinstance(parser, RecipeParser):
            parser.check_file(self._recipe)
        super().parse_arguments(parser, args)

    def before_instantiate_classes(self) -> None:
        """Refuse a model that could not be built, or not be exported in the end."""
        model = self.config.model
        make_config(model.task, model.controller, complete_options(model.controller, model.controller_options or {}))
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):  # costs neither memory nor random numbers
                TaskModel(model.task, model.controller, model.controller_options)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                f"Expected key 'model.controller_options' to build a controller {model.controller!r}, but got: {error}"
            ) from error

    def after_instantiate_classes(self) -> None:
        """Refuse what would fail only when the training begins, or once it has ended."""
        config = self.config
        if config.threads < 1:
            raise ValueError(f"Expected key 'threads' to be at least 1, but got {config.threads}.")
        if not 0 <= config.weight_average < 1:
            raise ValueError(
                f"Expected key 'weight_average' to be at least 0 and below 1, but got {config.weight_average}."
            )
        if config.hub.repo_id is not None:
            try:
                check_name(config.hub.repo_id)
            except ValueError as error:
                raise ValueError(f"Key 'hub.repo_id': {error}") from error
        self.config_init["stop"].check(self.datamodule)
        try:
            check_lengths(self.datamodule.task, config.evaluation.lengths)
        except ValueError as error:
            raise ValueError(f"Key 'evaluation.lengths': {error}") from error
        try:
            episodes_per_range(config.evaluation.lengths, config.evaluation.episodes)
        except ValueError as error:
            raise ValueError(f"Key 'evaluation.episodes': {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer | None:  # type: ignore[override]
        """Leave the Trainer for :meth:`make_trainer`: its loggers need the run folder."""
        return None

    def make_trainer(
        self, root_dir: Path, logger: list[Logger], callbacks: list[Callback], plugins: list[CheckpointIO]
    ) -> Trainer:
        """Return the Trainer with ``logger``, and with ``callbacks`` and ``plugins`` beside the recipe's own.

        ``root_dir`` is where Lightning puts, and looks for, what it saves on its own account.
        """
        arguments = dict(self.config_init["trainer"])
        own = _as_list(arguments.pop("callbacks"))
        own_plugins = _as_list(arguments.pop("plugins"))
        bar = arguments["enable_progress_bar"]
        progress = make_progress((sys.stdout is not None and sys.stdout.isatty()) if bar is None else bar)
        arguments["enable_progress_bar"] = isinstance(progress, ProgressBar)
        built = [self.config_init["guard"], self.config_init["curriculum"], self.config_init["stop"]]
        average = MovingAverage(self.config_init["weight_average"])
        try:
            return Trainer(
                **arguments,
                default_root_dir=root_dir,
                logger=logger,
                callbacks=[*own, *built, average, *callbacks, progress],
                plugins=[*own_plugins, *plugins],
            )
        except (MisconfigurationException, RuntimeError) as error:  # the latter of what a cluster has set
            raise ValueError(str(error)) from error

    def resolved(self) -> str:
        """Return the recipe with every key and override, as YAML that can be trained again."""
        config = self.config.clone()
        config.pop("config", None)
        config["ckpt_path"] = None
        return self.parser.dump(config, skip_unset=False)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a recipe can say: what is ours first, the Trainer's many options last."""
        parser.add_argument("--task", type=str, required=True, help="Name of the task, for the model and the data.")
        parser.add_argument("--threads", type=int, default=1, help="CPU threads that training and evaluation use.")
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
        parser.add_lightning_class_args(BreakUpGuard, "guard")
        parser.add_argument("--wandb", type=WandbOptions, default=WandbOptions())
        parser.add_argument("--evaluation", type=EvaluationOptions, default=EvaluationOptions())
        parser.add_argument("--hub", type=HubOptions, default=HubOptions())
        parser.add_class_arguments(
            Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True, skip=_NOT_IN_RECIPES
        )
        parser.set_defaults({f"trainer.{name}": value for name, value in _TRAINER_DEFAULTS.items()})
        for key in _LINKED:
            if key.endswith(".task"):
                parser.link_arguments("task", key)
            else:
                parser.link_arguments("seed_everything", key, compute_fn=int)
