"""Recipes: how one is found, read, checked and turned into what trains.

A recipe is a YAML file for Lightning's own command line (jsonargparse): the arguments of the module, the data, the
Trainer and a few callbacks, each under its own key. It may name classes by ``class_path``: a recipe is code, so use
only those you trust.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
import yaml
from jsonargparse import Namespace, set_parsing_settings
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from lightning_ham.arguments import expect_integer, expect_number
from lightning_ham.controllers import complete_options
from lightning_ham.evaluation import check_lengths, episodes_per_range
from lightning_ham.foreign import LONGEST_MESSAGE, quoted, shown
from lightning_ham.hub.config import make_config
from lightning_ham.hub.push import check_name
from lightning_ham.models import TaskModel
from lightning_ham.progress import make_progress
from lightning_ham.recipe_file import read_recipe
from lightning_ham.recipe_values import RECIPE_VALUES
from lightning_ham.tasks import Lengths
from lightning_ham.trainer_options import DEFAULTS as TRAINER_DEFAULTS
from lightning_ham.trainer_options import LEFT_OUT, check_options, check_trainer
from lightning_ham.training import (
    BreakUpGuard,
    ExplorationOptions,
    HAMModule,
    LengthCurriculum,
    MovingAverage,
    ReinforceOptions,
    ScheduleOptions,
    StopAtErrors,
    SupervisionOptions,
    TaskDataModule,
)
from lightning_ham.training.former_options import what_became_of

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
    with suppress(OSError):  # of a name that is too long for a file
        if path.is_file():
            return path
        shipped = RECIPES / f"{name_or_path}.yaml"
        if path.suffix not in {".yaml", ".yml"} and shipped.is_file():
            return shipped
    names = recipe_names()
    raise FileNotFoundError(
        f"Expected a recipe, but got {quoted(name_or_path)}, which is neither a file nor a shipped recipe;"
        f"{_did_you_mean(path.stem, names)} shipped: {', '.join(names)}."
    )


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" did you mean {close[0]!r}?" if close else ""


_LINKED = {"model.task": "task", "data.task": "task", "model.seed": "seed_everything", "data.seed": "seed_everything"}
"""Keys that follow another one, which stands for both the model's and the data's."""

_SECTIONS: dict[str, type[Any]] = {
    "model": HAMModule,
    "model.reinforce": ReinforceOptions,
    "model.schedule": ScheduleOptions,
    "model.exploration": ExplorationOptions,
    "model.supervision": SupervisionOptions,
    "data": TaskDataModule,
    "curriculum": LengthCurriculum,
    "stop": StopAtErrors,
    "guard": BreakUpGuard,
}
_LARGEST_SEED = (1 << 32) - 1  # NumPy's
_MOST_THREADS = 1024


@contextmanager
def named_as_keys(section: str, arguments: Iterable[str]) -> Iterator[None]:
    """Have a ValueError name keys as a recipe writes them, 'data.batch_size', in place of `batch_size`.

    Args:
        section: The section whose keys they are; "" for the keys of none.
        arguments: The arguments that are keys of this section.
    """
    known, prefix = set(arguments), f"{section}." if section else ""

    def key(match: re.Match[str]) -> str:
        name = match["name"]
        if name.partition(".")[0] not in known:
            return match[0]
        word = {"argument": "key ", "Argument": "Key "}.get(match["word"] or "", "")
        return f"{word}'{prefix}{name}'"

    try:
        yield
    except ValueError as error:
        message = re.sub(r"(?:(?P<word>[Aa]rgument) )?`(?P<name>[^`\s]+)`", key, str(error))
        raise ValueError(re.sub(r"\bgot (None|True|False)\b", _as_yaml, message)) from error


def _as_yaml(match: re.Match[str]) -> str:
    """Return a word of Python as a recipe writes it."""
    return match[0].replace(match[1], {"None": "null"}.get(match[1], match[1].lower()))


def _making(section: str) -> Callable[..., Any]:
    """Return what makes the class of a section, with errors that name the keys of the recipe."""

    def make(class_type: type[Any], *args: Any, **kwargs: Any) -> Any:
        with named_as_keys(section, inspect.signature(class_type).parameters):
            try:
                return class_type(*args, **kwargs)
            except (RuntimeError, MemoryError) as error:  # not enough memory for its weights
                raise ValueError(f"Expected the keys of {section!r} to make a model, but got: {error}") from error

    return make


class RecipeParser(LightningArgumentParser):
    """A parser whose complaint is one line that names the closest valid key."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` in one line and exit with status 2."""
        sys.stderr.write(f"error: {shown(self._one_line(message), LONGEST_MESSAGE)}\n")
        sys.exit(2)

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the help without the markup of docstrings."""
        return without_markup(super().format_help(formatter))

    def checked(self, recipe: Mapping[Any, Any]) -> dict[str, Any]:
        """Return a recipe without its empty sections, which are their defaults.

        Raises:
            ValueError: If it has a key that there is not: the parser itself ignores some, and names others without
                their group.
        """
        return self._checked(recipe, "", self._known_keys())

    def _checked(self, section: Mapping[Any, Any], prefix: str, known: set[str]) -> dict[str, Any]:
        result = {}
        for name, value in section.items():
            key = f"{prefix}{name}"
            if key in known:
                result[name] = value
            elif not any(other.startswith(f"{key}.") for other in known):
                raise ValueError(self._unknown(key))
            elif isinstance(value, Mapping):
                result[name] = self._checked(value, f"{key}.", known)
            elif value is not None:
                raise ValueError(f"Expected key {key!r} to hold keys of its own, but got {quoted(value)}.")
        return result

    def instantiate_classes(self, cfg: Namespace, **kwargs: Any) -> Namespace:
        """Make what the recipe says, with errors that name its keys."""
        makers = [(_making(section), made, False) for section, made in _SECTIONS.items()]
        return self.instantiate(cfg, instantiators=makers, **kwargs)

    def check_null(self, config: Namespace) -> None:
        """Complain of a key without a value where it needs one: the parser lets null pass for all types."""
        for section in {key.partition(".")[0] for key in self._known_keys() if "." in key}:
            if config[section] is None:
                self.error(f"Expected key {section!r} to hold keys of its own, but got null.")
        try:
            self.validate(config, skip_unset=False)
        except TypeError as error:
            self.error(str(error))

    def _known_keys(self) -> set[str]:
        hidden = {"help", "config", "print_config", *_LINKED}
        known = {action.dest for action in self._actions if not action.dest.endswith(".help")} - hidden
        known |= {f"model.reinforce.{field.name}" for field in dataclasses.fields(ReinforceOptions)}
        groups = {key[:end] for key in known for end, sign in enumerate(key) if sign == "."}
        return known - groups

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
            why = missing[1] if missing else _of_one_type(message)
            expected = f"name a class that there is ({why})" if why else f"be {_expected(message)}"
            expected = expected.replace("true or false or an integer", "an integer")  # of the seed, which is no truth
            got = "null" if value[1] == "None" else quoted(value[1].strip(repr("")))
            # A class within a section has a parser of its own, which knows its keys without the section's.
            by_name = {known.rpartition(".")[2]: known for known in sorted(self._known_keys(), key=len)}
            return f"Expected key {by_name.get(key[1], key[1])!r} to {expected}, but got {got}."
        return "; ".join(line.strip(" -") for line in message.splitlines() if line.strip(" -"))

    def _unknown(self, key: str) -> str:
        """Say what is wrong with a key that no recipe has."""
        became = what_became_of(key)
        if became:
            return became
        left_out = key.removeprefix("trainer.")
        if left_out in LEFT_OUT:
            return f"Key 'trainer.{left_out}' cannot be set in a recipe: {LEFT_OUT[left_out]}."
        known = sorted(self._known_keys())
        by_name = {name.rpartition(".")[2]: name for name in known}
        group, _, name = key.rpartition(".")
        here = {other.removeprefix(f"{group}."): other for other in known if group and other.startswith(f"{group}.")}
        groups = {word: word for word in (other.partition(".")[0] for other in known)}
        close = [_LINKED[key]] if key in _LINKED else [by_name[name]] if name in by_name else []
        for words in (here, groups, by_name):  # a mistyped name, or group, or name in a wrong group or in none
            close = close or [words[match] for match in difflib.get_close_matches(name, words, n=1)]
        hint = f"did you mean {close[0]!r}?" if close else "see --help for those there are."
        return f"Unknown key {quoted(key)} in the recipe or on the command line; {hint}"


def _of_one_type(message: str) -> str | None:
    """Return what only one of several types says of a value that it cannot be, beside what all say."""
    _, _, errors = message.partition("  Errors:" if "  Errors:" in message else "Errors:")
    lines = re.findall(r"^ +- (?!Expected an? |Not a valid |an? )(.+)$", errors, re.MULTILINE)
    return lines[0].rstrip(".") + "." if lines else None


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
    if any(words in message for words in ("Unable to load config", "dot import path", "Not a valid subclass")):
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
        option = ""
        for override in overrides:
            option = override.partition("=")[0] if override.startswith("-") else option
            if option in ("-c", "--config"):
                raise ValueError(f"Expected one recipe and options after it, but got {quoted(override)}.")
            if option == "--run_dir":  # whose own check says how a name becomes text
                continue
            if not override.isascii() and override.encode(errors="ignore").decode() != override:
                raise ValueError(f"Expected options in UTF-8, but got {quoted(override)}.")
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
            args=list(overrides),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Check the recipe's keys, then parse it and what overrides it."""
        assert isinstance(parser, RecipeParser)
        assert isinstance(args, list)
        if self._recipe is not None:
            recipe = parser.checked(read_recipe(self._recipe, parser.parser_mode))
            # Every value quoted and tagged, so that it stays what it is.
            args = ["--config", yaml.safe_dump(recipe, default_style='"'), *args]
        try:
            super().parse_arguments(parser, args)
        except OverflowError as error:  # of the parser's own conversion to a float
            raise ValueError("Expected numbers of at most 308 digits, but got a longer one.") from error
        with named_as_keys("", ["seed_everything"]):  # which could be a truth value, and is used at once
            expect_integer("seed_everything", self.config.seed_everything, at_least=0, at_most=_LARGEST_SEED)
        parser.check_null(self.config)

    def before_instantiate_classes(self) -> None:
        """Refuse a model that could not be built, or not be exported in the end."""
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
        """Refuse what would fail only when the training begins, or once it has ended."""
        config = self.config
        with named_as_keys("", ["threads", "weight_average"]):
            expect_integer("threads", config.threads, at_least=1, at_most=_MOST_THREADS)
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
        try:
            check_lengths(self.datamodule.task, config.evaluation.lengths)
        except ValueError as error:
            raise ValueError(f"Key 'evaluation.lengths': {error}") from error
        with named_as_keys("evaluation", ["episodes"]):
            for count in episodes_per_range(config.evaluation.lengths, config.evaluation.episodes):
                expect_integer("episodes", count)
        try:
            self.resolved()
        except (TypeError, ValueError) as error:  # a class of another package whose defaults are no plain values
            got = _of_one_type(str(error)) or str(error)
            raise ValueError(f"Expected values that recipe.yaml can hold, but got: {got}") from error

    def instantiate_classes(self) -> None:
        """Make all but the Trainer; what a class of Lightning refuses is an error like any other."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError) as error:
            raise ValueError(_of_one_type(str(error)) or str(error)) from error

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
        with named_as_keys("trainer", arguments):
            try:
                trainer = Trainer(
                    **arguments,
                    default_root_dir=root_dir,
                    logger=logger,
                    callbacks=[*own, *built, average, *callbacks, progress],
                    plugins=[*own_plugins, *plugins],
                )
            except (MisconfigurationException, RuntimeError) as error:  # the latter of what a cluster has set
                raise ValueError(str(error)) from error
            except (TypeError, KeyError, OverflowError) as error:
                raise ValueError(f"Expected options of 'trainer' that Lightning takes, but got: {error}") from error
            check_trainer(trainer, arguments, self.datamodule)
        with named_as_keys("data", vars(self.config.data)):
            self.datamodule.check_processes(trainer.world_size)
        self._try_an_episode(trainer)
        return trainer

    def _try_an_episode(self, trainer: Trainer) -> None:
        """Raise a ValueError if the model cannot run even the shortest episode of its task as it is to be trained."""
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
        """Return the keys that have no effect here although they are not at their defaults, each with the reason."""
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
            Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True, skip=set(LEFT_OUT)
        )
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
        for key, source in _LINKED.items():
            parser.link_arguments(source, key, compute_fn=int if source == "seed_everything" else None)
