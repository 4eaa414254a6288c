"""The command line of recipes: checks a recipe and its overrides, and builds module, data and Trainer.

A recipe is a YAML file for Lightning's own command line (jsonargparse): the arguments of the module, the data, the
Trainer and a few callbacks, each under its own key. It may name classes by ``class_path``, so a recipe is code: use
only recipes that you trust.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
import yaml
from jsonargparse import set_parsing_settings
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from lightning_ham.arguments import expect_integer, expect_number
from lightning_ham.console import called
from lightning_ham.controllers import complete_options
from lightning_ham.evaluation import check_lengths, episodes_per_range
from lightning_ham.foreign import quoted
from lightning_ham.hub.config import make_config
from lightning_ham.hub.push import check_name
from lightning_ham.models import TaskModel
from lightning_ham.runs.progress import make_progress
from lightning_ham.runs.recipe.complaints import complaint, null_complaint
from lightning_ham.runs.recipe.file import read_recipe
from lightning_ham.runs.recipe.keys import LARGEST_SEED, MOST_THREADS, Given, checked, given_by, given_in
from lightning_ham.runs.recipe.parser import RecipeParser, add_keys, named_as_keys
from lightning_ham.runs.recipe.space import SWEEP, read_space
from lightning_ham.runs.recipe.trainer_options import check_options, check_trainer
from lightning_ham.runs.recipe.values import RECIPE_VALUES
from lightning_ham.runs.trackers import made_loggers
from lightning_ham.training import (
    HAMModule,
    MovingAverage,
    TaskDataModule,
    namespace,
)


def _as_list(value: Any) -> list[Any]:
    """Return a value that may be null, one or a list as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


class RecipeCLI(LightningCLI):
    """Lightning's command line for recipes: ``RECIPE [--dotted.override value ...]``."""

    def __init__(self, recipe: Path | None, overrides: Sequence[str]) -> None:
        if pytorch_lightning.__name__ != namespace.NAME:
            raise ImportError(
                "Expected pytorch_lightning, which recipes are trained with, but this program has loaded lightning_ham "
                f"for {namespace.NAME}: train in a process of its own, without the variable {namespace.VARIABLE}."
            )
        self._recipe = recipe
        # Finding docstrings of attributes takes time, and only the help shows them.
        self._wants_help = any(override == "-h" or override.endswith("help") for override in overrides)
        set_parsing_settings(docstring_parse_attribute_docstrings=self._wants_help)
        option = ""
        for override in overrides:
            option = override.partition("=")[0] if override.startswith("-") else option
            if option in ("-c", "--config"):
                raise ValueError(f"Expected one recipe and options after it, but got {quoted(override)}.")
            if option == "--run_dir":  # has its own check of names
                continue
            if not override.isascii() and override.encode(errors="ignore").decode() != override:
                raise ValueError(f"Expected options in UTF-8, but got {quoted(override)}.")
        super().__init__(
            HAMModule,
            TaskDataModule,
            save_config_callback=None,
            parser_class=RecipeParser,
            parser_kwargs={
                "prog": called("fit"),
                "allow_abbrev": False,
                "parser_mode": RECIPE_VALUES,
                "usage": f"{called('fit')} RECIPE [--dotted.override value ...]",
                "description": "Train a model from a recipe; every key of it is an option, e.g. --data.batch_size 64.",
            },
            args=list(overrides),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Check the recipe's keys, then parse the recipe and its overrides."""
        assert isinstance(parser, RecipeParser)
        assert isinstance(args, list)
        given = [Given("task", None)]
        if self._recipe is not None:
            content = read_recipe(self._recipe, parser.parser_mode)
            read_space(content.pop(SWEEP, None), self._recipe)  # a training needs it only to be right
            recipe = checked(content)
            given = [*given_in({"task": None} | recipe), *(() if self._wants_help else given_by(args))]
            # Every value quoted and tagged, so that it keeps its type.
            args = ["--config", yaml.safe_dump(recipe, default_style='"'), *args]
        try:
            super().parse_arguments(parser, args)
            with named_as_keys("", ["seed_everything"]):  # it is used at once
                expect_integer("seed_everything", self.config.seed_everything, at_least=0, at_most=LARGEST_SEED)
            missing = null_complaint(self.config)
            if missing:
                raise ValueError(missing)
            parser.validate(self.config, skip_unset=False)  # finds null deeper inside values
        except OverflowError as error:  # from the parser's conversion to float
            raise ValueError("Expected numbers of at most 308 digits, but got a longer one.") from error
        except (argparse.ArgumentError, KeyError, TypeError) as error:
            raise ValueError(complaint(given) or f"Expected values that its keys take, but got: {error}") from error

    def before_instantiate_classes(self) -> None:
        """Refuse a model that cannot be built, or could not be exported at the end."""
        model = self.config.model
        options = model.controller_options or {}
        for name in options:
            if not isinstance(name, str):
                raise ValueError(
                    f"Expected the keys of 'model.controller_options' to be words, but got {quoted(name)}."
                )
        try:
            make_config(model.task, model.controller, complete_options(model.controller, options))
        except ValueError as error:
            raise ValueError(str(error).replace("key 'controller", "key 'model.controller")) from error
        try:
            with (
                named_as_keys("model.controller_options", complete_options(model.controller, options)),
                torch.random.fork_rng(devices=[]),
                torch.device("meta"),  # costs neither memory nor random numbers
            ):
                TaskModel(model.task, model.controller, options)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                f"Expected key 'model.controller_options' to build a controller {model.controller!r}, but got: {error}"
            ) from error

    def after_instantiate_classes(self) -> None:
        """Refuse values that would fail only later, when the training begins or ends."""
        config = self.config
        with named_as_keys("", ["threads", "weight_average"]):
            expect_integer("threads", config.threads, at_least=1, at_most=MOST_THREADS)
            expect_number("weight_average", config.weight_average, at_least=0, below=1)
        if config.hub.repo_id is not None:
            try:
                check_name(config.hub.repo_id)
            except ValueError as error:
                raise ValueError(f"Key 'hub.repo_id': {error}") from error
        with named_as_keys("stop", ["errors"]):
            self.config_init["stop"].check(self.datamodule)
        with named_as_keys("trainer", vars(config.trainer)):
            check_options(self.config_init["trainer"])
        with named_as_keys("certify", vars(config.certify)):
            self.config_init["certify"].check(self.model.model)
        try:
            check_lengths(self.datamodule.task, config.evaluation.lengths)
        except ValueError as error:
            raise ValueError(f"Key 'evaluation.lengths': {error}") from error
        with named_as_keys("evaluation", ["episodes"]):
            for count in episodes_per_range(config.evaluation.lengths, config.evaluation.episodes):
                expect_integer("episodes", count)
        try:
            self.resolved()
        except (TypeError, ValueError) as error:  # a class of another package with defaults that are not plain values
            raise ValueError(f"Expected values that recipe.yaml can hold, but got: {error}") from error

    def instantiate_classes(self) -> None:
        """Make everything but the Trainer; turn Lightning's refusals into ValueErrors."""
        assert isinstance(self.parser, RecipeParser)
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError) as error:
            raise ValueError(str(self.parser.refusal or error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer | None:  # type: ignore[override]
        """Return None: :meth:`make_trainer` makes the Trainer, as its loggers need the run folder."""
        return None

    def make_trainer(
        self, root_dir: Path, logger: list[Logger], callbacks: list[Callback], plugins: list[CheckpointIO]
    ) -> Trainer:
        """Return the Trainer with ``logger``, ``callbacks`` and ``plugins``, each besides the recipe's own.

        ``root_dir`` is the folder for files that Lightning saves by itself.
        """
        arguments = dict(self.config_init["trainer"])
        own = _as_list(arguments.pop("callbacks"))
        own_plugins = _as_list(arguments.pop("plugins"))
        own_loggers = arguments.pop("logger")
        progress = make_progress(arguments["enable_progress_bar"])
        arguments["enable_progress_bar"] = isinstance(progress, ProgressBar)
        built = [self.config_init["guard"], self.config_init["curriculum"], self.config_init["stop"]]
        average = MovingAverage(self.config_init["weight_average"])
        with named_as_keys("trainer", [*arguments, "logger"]):
            try:
                loggers = [*logger, *made_loggers(own_loggers, str(self.config.run_dir))]
                trainer = Trainer(
                    **arguments,
                    default_root_dir=root_dir,
                    logger=loggers,
                    callbacks=[*own, *built, average, *callbacks, progress],
                    plugins=[*own_plugins, *plugins],
                )
            except (MisconfigurationException, RuntimeError) as error:  # the latter from settings of a cluster
                raise ValueError(str(error)) from error
            except (TypeError, KeyError, OverflowError) as error:
                raise ValueError(f"Expected options of 'trainer' that Lightning takes, but got: {error}") from error
            check_trainer(trainer, arguments, self.datamodule)
        with named_as_keys("data", vars(self.config.data)):
            self.datamodule.check_processes(trainer.world_size)
        self._try_an_episode(trainer)
        return trainer

    def _try_an_episode(self, trainer: Trainer) -> None:
        """Raise a ValueError if the model cannot run the shortest episode of its task as in training."""
        module: HAMModule = self.model
        on_cpu = trainer.strategy.root_device.type == "cpu"
        if not on_cpu and self.config.model.engine == "fused":
            raise ValueError("Expected key 'model.engine' to be 'auto', as the engine 'fused' runs on the CPU only.")
        task = module.model.task
        generator = torch.Generator().manual_seed(0)
        episodes = task.sample(1, (task.min_length, task.min_length), generator=generator)
        with trainer.precision_plugin.forward_context() if on_cpu else nullcontext():
            module.model(episodes, module.attention, generator, guided=module.supervision.guided_fraction > 0)

    def unused_keys(self) -> dict[str, str]:
        """Return the keys that differ from their defaults but have no effect, each with the reason."""
        config, data, trainer = self.config, self.datamodule, self.config.trainer
        unused = {f"model.{name}": reason for name, reason in self.model.unused_options.items()}
        last, every = trainer.max_epochs, trainer.check_val_every_n_epoch
        unvalidated = trainer.limit_val_batches == 0 or (every and last and 0 < last < every)
        whole = data.capacity == data.final_capacity
        reasons = {
            "stop.errors": unvalidated and "nothing is validated",
            "stop.patience": not config.stop.errors and "there is no bar to meet in 'stop.errors'",
            "curriculum.threshold": whole and "training begins at the whole capacity",
            "data.smaller_fraction": data.final_capacity == data.min_capacity and "there is no smaller capacity",
            "hub.private": config.hub.repo_id is None and "nothing is published",
            "trainer.gradient_clip_algorithm": not trainer.gradient_clip_val and "no gradient is clipped",
        }
        is_set = {key: config[key] != self.parser.get_default(key) for key in reasons}
        unused |= {key: reason for key, reason in reasons.items() if reason and is_set[key]}
        if unvalidated and not whole:
            unused["data.capacity"] = "nothing is validated, so that training stays at the capacity at which it begins"
        return unused

    def resolved(self) -> str:
        """Return the recipe with all keys and overrides, as YAML that is a recipe again."""
        config = self.config.clone()
        config.pop("config", None)
        config["ckpt_path"] = None
        return self.parser.dump(config, skip_unset=False)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add nothing: the seed is one of a recipe's keys."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the keys of a recipe."""
        add_keys(parser)
