"""The list of trainings: every shipped recipe and its comparison models, with several seeds."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from lightning_ham.models import TaskModel
from lightning_ham.reproduction.records import (
    COMPARISONS,
    TITLES,
    Results,
    bar_of,
    make_run,
    seconds_of,
    task_order,
    was_cut_off,
)
from lightning_ham.runs.folder import EVALUATION, TRAINING, read_json, write_json
from lightning_ham.runs.recipe.catalog import RECIPES, find_recipe, recipe_names
from lightning_ham.runs.recipe.space import SWEEP

OURS = "lstm_ham"


class Job(NamedTuple):
    """One training."""

    task: str
    model: str
    recipe: str
    seed: int
    overrides: tuple[str, ...]
    digest: str
    """Digest of the recipe and the overrides, the same for every seed."""
    run_dir: Path

    @property
    def name(self) -> str:
        """The name in printed output."""
        return f"{self.task} {self.model} seed {self.seed}"

    @property
    def log(self) -> Path:
        """The file for the training's output; the training process holds a lock on it."""
        return self.run_dir.with_suffix(".log")

    def is_done(self, budget: datetime.timedelta | None) -> bool:
        """Return whether the run is finished, and a larger ``budget`` does not let it go on."""
        if not (self.run_dir / EVALUATION).is_file():
            return False
        training = read_json(self.run_dir / TRAINING)
        if "hyper_parameters" not in training:  # damaged: the training must write it again
            return False
        limit = training["hyper_parameters"]["trainer"]["max_time"]
        if not was_cut_off(training["seconds"], limit):
            return True
        return budget is not None and budget.total_seconds() <= seconds_of(limit)


def reproducible_tasks() -> list[str]:
    """Return the tasks with a shipped recipe of the same name, in the order of the paper."""
    tasks = [name for name in recipe_names() if "/" not in name and _read(name)["task"] == name]
    return sorted(tasks, key=task_order)


def _read(recipe: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(find_recipe(recipe).read_text(encoding="utf-8"))
    content.pop(SWEEP, None)  # changes no training
    return content


def models_of(task: str) -> list[str]:
    """Return the models for a task: ours, comparison models, and the paper's if there is a recipe.

    A task with another controller than LSTM+HAM, such as a data structure, has no comparison models.
    """
    controller = (_read(task).get("model") or {}).get("controller", OURS)
    return [
        "ham",
        *(COMPARISONS if controller == OURS else ()),
        *(model for model, recipe in _PAPER.items() if (RECIPES / f"{recipe.format(task=task)}.yaml").is_file()),
    ]


_PAPER = {"paper-reinforce": "paper/{task}", "paper-soft": "paper/{task}-soft"}


def comparison_size(task: str, controller: str) -> int:
    """Return the smallest size, from 128 in steps of 32, that gives a comparison model more parameters than ours.

    Args:
        task: Name of the task, and of its recipe.
        controller: ``lstm`` or ``lstm_attention``.
    """

    def parameters(controller: str, options: Mapping[str, Any]) -> int:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return TaskModel(task, controller, options).num_parameters

    ours = parameters(OURS, (_read(task).get("model") or {}).get("controller_options") or {})
    size = 128
    while parameters(controller, {"controller_size": size}) <= ours:
        size += 32
    return size


def make_job(task: str, model: str, seed: int, runs: Path, overrides: tuple[str, ...] = ()) -> Job:
    """Return the training of a model on a task with a seed; ``overrides`` are further overrides of its recipe."""
    recipe = _PAPER[model].format(task=task) if model in _PAPER else task
    if model in COMPARISONS:
        size = comparison_size(task, model)
        overrides = (
            f"--model.controller={model}",
            f"--model.controller_options={{controller_size: {size}}}",
            "--model.attention=straight_through",  # without a memory there is nothing to attend to
            "--model.reinforce=null",
            "--model.supervision.guided_fraction=0",
            "--data.deeper_fraction=0",  # nor a tree in which to place an instance
            "--data.shifted_fraction=0",
            *overrides,
        )
    text = json.dumps([_read(recipe), overrides], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Job(task, model, recipe, seed, overrides, digest, runs / f"{task}-{model}-{digest[:6]}" / str(seed))


def make_jobs(
    tasks: Sequence[str], models: Sequence[str], seeds: Sequence[int], runs: Path, overrides: tuple[str, ...] = ()
) -> list[Job]:
    """Return all trainings: ours before the others, and the first seed of every task before the second."""
    return [
        make_job(task, model, seed, runs, overrides)
        for model in TITLES
        if model in models
        for seed in seeds
        for task in tasks
        if model in models_of(task)
    ]


def collect(job: Job, results: Path) -> Results | None:
    """Write ``TASK-MODEL.json`` from all finished runs of a job's recipe; return None if there are none.

    Seeds already in the file stay if they have the same recipe, and no run on this machine.
    """
    folders = [path.parent for path in job.run_dir.parent.glob(f"*/{EVALUATION}")]
    folders = [folder for folder in folders if "hyper_parameters" in read_json(folder / TRAINING)]
    if not folders:
        return None
    path = results / f"{job.task}-{job.model}.json"
    by_seed = {}
    if path.is_file():
        earlier: Results = json.loads(path.read_text(encoding="utf-8"))
        if earlier["recipe_digest"] == job.digest:
            by_seed = {run_["seed"]: run_ for run_ in earlier["runs"]}
    by_seed |= {run_["seed"]: run_ for run_ in map(make_run, folders)}
    collected: Results = {
        "task": job.task,
        "model": job.model,
        "recipe": job.recipe,
        "overrides": list(job.overrides),
        "recipe_digest": job.digest,
        "bar": bar_of(job.task),
        "runs": [by_seed[seed] for seed in sorted(by_seed)],
    }
    write_json(path, collected)
    return collected
