"""Train every recipe and its comparison models with several seeds: ``python -m lightning_ham.reproduce``.

Each training is a ``fit`` of its own, in ``runs/reproduce/TASK-MODEL-DIGEST/SEED``, some side by side. The digest is of
what the recipe says: a run is done once, however often this is started, until its recipe changes. What was interrupted
goes on from its last checkpoint. After every training ``results/TASK-MODEL.json`` and ``RESULTS.md`` are written anew.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import torch
import yaml

from lightning_ham.command_line import CommandParser, positive, run
from lightning_ham.hub.card import duration
from lightning_ham.models import TaskModel
from lightning_ham.recipe import RECIPES, find_recipe, recipe_names
from lightning_ham.results import (
    BARS,
    EPISODES,
    FOLDER,
    RANGES,
    TITLES,
    Results,
    make_run,
    max_time,
    seconds_of,
    was_cut_off,
    write,
    write_json,
    wrong_counts,
)

OURS = "lstm_ham"
COMPARISONS = ("lstm", "lstm_attention")
SLOW_LONG_EPISODES = 50
"""Most episodes at lengths 129-1,024 for LSTM+A, which takes a second for each of them."""
GRACE = 30.0
"""Seconds that a training has to end once it is asked to."""


class Job(NamedTuple):
    """One training to be done."""

    task: str
    model: str
    recipe: str
    seed: int
    overrides: tuple[str, ...]
    digest: str
    """Of the recipe and the overrides, which are the same for every seed."""
    run_dir: Path

    @property
    def name(self) -> str:
        """What it is called in what is printed."""
        return f"{self.task} {self.model} seed {self.seed}"

    @property
    def log(self) -> Path:
        """Where the output of its training goes; who trains holds a lock on it."""
        return self.run_dir.with_suffix(".log")

    def is_done(self, budget: datetime.timedelta | None) -> bool:
        """Whether its evaluation is there, which is written last, and ``budget`` leaves it no more time than it had."""
        if not (self.run_dir / "evaluation.json").is_file():
            return False
        training = json.loads((self.run_dir / "training.json").read_text(encoding="utf-8"))
        limit = training["hyper_parameters"]["trainer"]["max_time"]
        if not was_cut_off(training["seconds"], limit):
            return True
        return budget is not None and budget.total_seconds() <= seconds_of(limit)


# What there is to train.


def reproducible_tasks() -> list[str]:
    """Return the tasks that have a shipped recipe of their name, in the order of the bars."""
    tasks = [name for name in recipe_names() if "/" not in name and _read(name)["task"] == name]
    return sorted(tasks, key=lambda task: (list(BARS).index(task) if task in BARS else len(BARS), task))


def _read(recipe: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(find_recipe(recipe).read_text(encoding="utf-8"))
    return content


def models_of(task: str) -> list[str]:
    """Return the models that can be trained on a task: ours, comparison models, and the paper's where it has a recipe.

    What has another controller than LSTM+HAM, as the data structures have, is not compared with LSTMs.
    """
    controller = (_read(task).get("model") or {}).get("controller", OURS)
    return [
        "ham",
        *(COMPARISONS if controller == OURS else ()),
        *(model for model, recipe in _PAPER.items() if (RECIPES / f"{recipe.format(task=task)}.yaml").is_file()),
    ]


_PAPER = {"paper-reinforce": "paper/{task}", "paper-soft": "paper/{task}-soft"}


def comparison_size(task: str, controller: str) -> int:
    """Return the smallest size, from 128 in steps of 32, with which a comparison model has more parameters than ours.

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
    """Return the training of a model on a task with a seed; ``overrides`` are further ones of its recipe."""
    recipe = _PAPER[model].format(task=task) if model in _PAPER else task
    if model in COMPARISONS:
        size = comparison_size(task, model)
        overrides = (
            f"--model.controller={model}",
            f"--model.controller_options={{controller_size: {size}}}",
            "--model.attention=straight_through",  # they have no memory, so nothing to attend to
            "--model.reinforce=null",
            "--model.guided_fraction=0",
            "--data.deeper_fraction=0",  # nor a tree that an instance could stand in elsewhere
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


# Training.


class Settings(NamedTuple):
    """How trainings are run."""

    budget: datetime.timedelta | None
    threads: int
    episodes: int
    long_episodes: int


def command(job: Job, settings: Settings) -> list[str]:
    """Return the arguments of the ``fit`` that does a job, or goes on with it."""
    goes_on = (job.run_dir / "checkpoints" / "last.ckpt").is_file()
    if goes_on:
        arguments = [str(job.run_dir / "recipe.yaml"), "--ckpt_path=last"]
    else:
        arguments = [job.recipe, *job.overrides, f"--seed_everything={job.seed}"]
    long = min(settings.long_episodes, SLOW_LONG_EPISODES) if job.model == "lstm_attention" else settings.long_episodes
    arguments += [
        f"--run_dir={job.run_dir}",
        f"--threads={settings.threads}",
        f"--evaluation.lengths={[list(lengths) for lengths in RANGES]}",
        f"--evaluation.episodes={[settings.episodes, settings.episodes, long]}",
    ]
    if settings.budget is not None:
        arguments.append(f"--trainer.max_time={max_time(settings.budget)}")
    elif goes_on:
        arguments.append("--trainer.max_time=null")  # the recipe in the run folder may have the limit that cut it off
    return arguments


class Trainings:
    """Runs trainings, each as a process of its own, until it is told to stop.

    Args:
        settings: How they are run.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def train(self, job: Job) -> Literal["done", "failed", "busy", "stopped"]:
        """Do a job; say how it ended.

        ``busy`` means that another process is at it. A training that outlives us still holds the lock.
        """
        job.run_dir.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return "busy"
            with self._lock:
                if self._stopped.is_set():
                    return "stopped"
                if job.is_done(self.settings.budget):  # by another process, since the jobs were made
                    return "done"
                process = subprocess.Popen(
                    [sys.executable, "-m", "lightning_ham.fit", *command(job, self.settings)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(self.settings.threads),
                    start_new_session=True,  # Ctrl-C reaches us, and we tell it
                )
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
                stopped = self._stopped.is_set()
        if status == 0:
            return "done"
        return "stopped" if stopped else "failed"

    def stop(self) -> None:
        """End all trainings, which keep their last checkpoints, and start no others."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        for process in running:
            process.terminate()
        deadline = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def _environment(threads: int) -> dict[str, str]:
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    # Not even offline runs in W&B, of which there would be many, unless they are asked for.
    return {"WANDB_MODE": "disabled"} | os.environ | dict.fromkeys(variables, str(threads))


# Collecting.


def collect(job: Job, results: Path) -> Results | None:
    """Write ``TASK-MODEL.json`` from all run folders of a job's recipe that have ended; None if there are none.

    Seeds that the file has already, of the same recipe, stay in it where this machine has no run of them.
    """
    folders = [path.parent for path in job.run_dir.parent.glob("*/evaluation.json")]
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
        "bar": BARS.get(job.task),
        "runs": [by_seed[seed] for seed in sorted(by_seed)],
    }
    write_json(path, collected)
    return collected


# The command.


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "reproduce",
        "Train every recipe and its comparison models with several seeds, evaluate them on fresh episodes, and write\n"
        "results/*.json and RESULTS.md. Start it again to go on: what has ended is not done again, and what a smaller\n"
        "--budget cut off is gone on with.",
        epilog="Keys of recipes, in the form --trainer.max_epochs=10, override them in every training.",
    )
    tasks = reproducible_tasks()
    parser.add_argument("--only", type=_names(tasks), default=tasks, metavar="TASK,TASK", help=", ".join(tasks))
    parser.add_argument(
        "--models", type=_names(list(TITLES)), default=list(TITLES), metavar="MODEL,MODEL", help=", ".join(TITLES)
    )
    parser.add_argument("--seeds", type=positive, default=5, metavar="N", help="seeds 1 to N (default: 5)")
    parser.add_argument("--first_seed", type=positive, default=1, metavar="N", help="begin at this one (default: 1)")
    parser.add_argument(
        "--budget", type=_duration, metavar="TIME", help="longest training, such as 90s, 20m or 1h (default: no limit)"
    )
    parser.add_argument("--jobs", type=positive, default=2, metavar="N", help="trainings side by side (default: 2)")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="CPU threads of each (default: 1)")
    parser.add_argument(
        "--episodes",
        type=positive,
        default=EPISODES[0],
        metavar="N",
        help="evaluated at 1-32 and at 33-128 (default: 10000)",
    )
    parser.add_argument(
        "--long_episodes",
        type=positive,
        default=EPISODES[2],
        metavar="N",
        help=f"evaluated at 129-1024 (default: {EPISODES[2]}; at most {SLOW_LONG_EPISODES} for lstm_attention)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs", "reproduce"),
        metavar="DIR",
        help="run folders (default: runs/reproduce)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="where results/ and RESULTS.md go (default: here)"
    )
    parser.add_argument("--list", action="store_true", help="say what is done and what is to be done, and do nothing")
    return parser


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"Expected some of {', '.join(known)}, but got {name!r}")
        return chosen

    return names


def _duration(text: str) -> datetime.timedelta:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds < 1:
        raise argparse.ArgumentTypeError(f"Expected a time such as 90s, 20m or 1h, but got {text!r}")
    return datetime.timedelta(seconds=seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Reproduce as the command line says; return the exit status."""
    parser = make_parser()
    mine, overrides = _split(list(sys.argv[1:] if argv is None else argv))
    arguments = parser.parse(mine)
    seeds = range(arguments.first_seed, arguments.seeds + 1)
    if not seeds:
        parser.error(f"Expected --first_seed of at most --seeds ({arguments.seeds}), but got {arguments.first_seed}")
    runs, output = arguments.runs, arguments.output
    jobs = make_jobs(arguments.only, arguments.models, seeds, runs, overrides)
    todo = [job for job in jobs if not job.is_done(arguments.budget)]
    if arguments.list:
        for job in jobs:
            state = "done" if job not in todo else "begun" if job.log.exists() else "to do"
            print(f"{state:5}  {job.name}  {job.run_dir}")
        return 0
    print(f"{len(jobs)} trainings, {len(jobs) - len(todo)} of them done already", flush=True)
    settings = Settings(arguments.budget, arguments.threads, arguments.episodes, arguments.long_episodes)
    report = _Report(output, len(jobs), len(jobs) - len(todo))
    for job in {(job.task, job.model): job for job in jobs}.values():
        collect(job, output / FOLDER)
    outcomes = _train_all(todo, Trainings(settings), arguments.jobs, report)
    for path in write(output):
        print(f"Wrote {path}")
    if "stopped" in outcomes:
        print("Interrupted. Go on with the same command.", flush=True)
        return 130
    return 1 if "failed" in outcomes else 0


def _split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Part our own options from keys of recipes, which are written ``--group.key=value``."""
    overrides = [argument for argument in argv if re.match(r"--\w+\.[\w.]+=", argument)]
    return [argument for argument in argv if argument not in overrides], tuple(overrides)


class _Report:
    """Collects after every training, and prints a line about it."""

    def __init__(self, output: Path, total: int, done: int) -> None:
        self.output, self.total, self.finished = output, total, done
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def add(self, job: Job, outcome: str) -> None:
        """Take in how a job ended."""
        with self._lock:
            if outcome == "stopped":
                return
            self.finished += 1
            words = self._words(job) if outcome == "done" else _FAILURES[outcome].format(log=job.log)
            elapsed = duration(time.monotonic() - self._start)
            print(f"[{self.finished}/{self.total}, {elapsed}] {job.name}: {words}", flush=True)

    def _words(self, job: Job) -> str:
        collected = collect(job, self.output / FOLDER)
        assert collected is not None  # this job's run has ended
        write(self.output)
        (run_,) = (run_ for run_ in collected["runs"] if run_["seed"] == job.seed)
        bar = {True: "bar reached", False: "bar missed", None: "no bar"}[run_["reached_bar"]]
        return f"wrong: {wrong_counts(run_)}; {bar}; {run_['updates']:,} updates in {duration(run_['seconds'])}"


_FAILURES = {
    "failed": "FAILED, see {log}",
    "busy": "left alone, as another process trains it (it writes {log})",
}


def _train_all(jobs: Sequence[Job], trainings: Trainings, workers: int, report: _Report) -> set[str]:
    """Do all jobs, some side by side; return how they ended. Ctrl-C and SIGTERM stop them."""

    def do(job: Job) -> str:
        outcome = trainings.train(job)
        report.add(job, outcome)
        return outcome

    with _terminated_as_interrupted(), ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(do, job) for job in jobs]
        try:
            return {future.result() for future in futures}
        except BaseException as error:
            trainings.stop()
            for future in futures:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):
                return {"stopped"}
            raise


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM raise what Ctrl-C raises."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    run(main)
