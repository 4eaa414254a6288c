"""The plan of a sweep: the recipe, the space, and how trials are run. It is checked before anything is trained."""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from lightning_ham.foreign import quoted
from lightning_ham.output_files import write
from lightning_ham.runs.recipe.catalog import find_recipe, recipe_name
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.recipe.file import read_recipe
from lightning_ham.runs.recipe.space import SWEEP, Space, override, read_option, read_space
from lightning_ham.runs.recipe.values import RECIPE_VALUES
from lightning_ham.sweeps.objective import Goal

STUDY = "study.db"
"""The default storage, in the sweep's folder."""
_LOG = logging.getLogger("lightning_ham")

USUAL_SPACE = (
    "model.schedule.learning_rate=loguniform(3e-4, 1e-2)",
    "model.exploration.entropy_bonus=loguniform(1e-3, 0.3)",
    "data.batch_size=choice(64, 128, 256)",
)
"""The space of a recipe that has none."""


class Search(NamedTuple):
    """How values are drawn, and which trials are pruned."""

    sampler: str
    """``tpe`` or ``random``."""
    seed: int
    """Seed of the values drawn."""
    pruner: str
    """``median``, ``asha`` or ``none``."""
    startup: int
    """Completed trials before the median pruner begins."""
    warmup: int
    """Validations before which no trial is pruned."""


class Plan(NamedTuple):
    """A sweep."""

    name: str
    folder: Path
    storage: str
    """URL of Optuna's storage."""
    recipe: Path
    """The sweep's copy of the recipe, which :func:`keep_recipe` makes."""
    source: Path
    """The recipe that is copied."""
    content: dict[str, Any]
    """What the recipe holds, without the space."""
    overrides: tuple[str, ...]
    """Options of ``fit`` for all trainings."""
    space: Space
    seeds: tuple[int, ...]
    """The seeds of each trial."""
    search: Search
    goal: Goal
    trials: int
    jobs: int
    """Trials at once."""
    threads: int
    """CPU threads of each training."""
    budget: datetime.timedelta | None
    """Longest training."""
    grace: int
    """Seconds without a sign of life after which a trial's process counts as dead."""
    words: tuple[str, ...]
    """The command line, without the storage's password."""

    def settings(self) -> dict[str, Any]:
        """Return what must not change within a sweep, as plain data."""
        settings = {
            "recipe": self.content,
            "overrides": self.overrides,
            "space": {key: dimension._replace(place="")._asdict() for key, dimension in self.space.items()},
            "seeds": self.seeds,
            "budget": None if self.budget is None else self.budget.total_seconds(),
        }
        found: dict[str, Any] = json.loads(json.dumps(settings))
        return found


def make_plan(arguments: argparse.Namespace, overrides: tuple[str, ...], words: Sequence[str]) -> Plan:
    """Return the plan that a command line asks for; nothing is written.

    Args:
        arguments: The options of ``python -m lightning_ham.sweep``.
        overrides: Keys of the recipe, as options of ``fit``.
        words: The command line.

    Raises:
        ValueError: If the recipe, the space or an option is wrong.
        OSError: If there is no such recipe, or it cannot be read.
    """
    recipe = find_recipe(arguments.recipe)
    name = arguments.name or f"sweep-{recipe_name(recipe).replace('/', '-')}"
    if not re.fullmatch(r"[\w.-]{1,100}", name):
        raise ValueError(f"Expected a --name of letters, digits, '-', '_' and '.', but got {quoted(name)}.")
    folder = arguments.run_dir or Path("runs", name)
    shown_storage = without_password(arguments.storage or "")
    if not arguments.storage and set(str(folder.absolute())) & set("?%{}"):
        raise ValueError(
            f"Expected a folder without '?', '%', '{{' and '}}', which URLs of storages cannot have, but got {folder}; "
            "choose another --run_dir, or name a --storage."
        )
    content = read_recipe(recipe, RECIPE_VALUES)
    space = read_space(content.pop(SWEEP, None), recipe) | dict(map(read_option, arguments.space))
    if not space:
        space = dict(map(read_option, USUAL_SPACE))
        _LOG.info("%s has no section 'sweep', so the usual space is searched: %s", recipe, ", ".join(USUAL_SPACE))
    for option in overrides:
        key = option.removeprefix("--").partition("=")[0]
        if key in space:
            raise ValueError(f"Expected values of {key!r} from the space or from {option}, but got both.")
    cli = _checked(recipe, overrides, space)
    first = cli.config.seed_everything
    return Plan(
        name=name,
        folder=folder,
        storage=arguments.storage or f"sqlite:///{folder.absolute() / STUDY}",
        recipe=folder / "recipe" / recipe.name,
        source=recipe,
        content=content,
        overrides=overrides,
        space=space,
        seeds=tuple(range(first, first + arguments.seeds)),
        search=Search(arguments.sampler, arguments.sampler_seed, arguments.pruner, arguments.startup, arguments.warmup),
        goal=_goal(cli),
        trials=arguments.trials,
        jobs=arguments.jobs,
        threads=arguments.threads,
        budget=arguments.budget,
        grace=max(2, round(arguments.grace.total_seconds())),
        words=tuple(word.replace(arguments.storage or "\0", shown_storage) for word in words),
    )


def without_password(url: str) -> str:
    """Return a storage's URL with ``***`` for its password.

    >>> without_password("postgresql+psycopg://ada:secret@host/sweeps")
    'postgresql+psycopg://ada:***@host/sweeps'
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:  # which is no URL, and shown as it is
        return url


def _checked(recipe: Path, overrides: Sequence[str], space: Space) -> RecipeCLI:
    """Build the recipe, and the recipe with the ends of each range and with each choice; return the first.

    Raises:
        ValueError: If one of them is refused.
    """
    plain = RecipeCLI(recipe, overrides)
    for key, dimension in space.items():
        for value in dimension.corners:
            try:
                RecipeCLI(recipe, [*overrides, override(key, value)])
            except ValueError as error:
                raise ValueError(
                    f"{dimension.place}: in the space of {key!r}: Expected values that the recipe takes, but got "
                    f"{quoted(value)}: {error}"
                ) from error
    return plain


def _goal(cli: RecipeCLI) -> Goal:
    """Return what the trainings of a recipe aim at.

    Raises:
        ValueError: If they validate nothing, so that they cannot be compared.
    """
    trainer = cli.config.trainer
    if trainer.limit_val_batches == 0 or not trainer.check_val_every_n_epoch:
        raise ValueError("Expected a recipe that validates after epochs, as trials are compared by validation.")
    stop = cli.config_init["stop"]
    return Goal(cli.datamodule.final_capacity, stop.errors, stop.patience)


def keep_recipe(plan: Plan) -> None:
    """Copy the recipe to the sweep's folder, so that later changes of the file do not change later trials.

    Raises:
        ValueError: If the folder has another recipe, of another sweep.
    """
    if not plan.recipe.is_file():
        plan.recipe.parent.mkdir(parents=True, exist_ok=True)
        write(str(plan.recipe), plan.source.read_bytes())
    content = read_recipe(plan.recipe, RECIPE_VALUES)
    content.pop(SWEEP, None)
    if content != plan.content:
        raise ValueError(
            f"Expected a folder of this sweep, but {plan.recipe} is another recipe than {plan.source}; choose another "
            "--run_dir."
        )
