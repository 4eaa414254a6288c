"""Results of trainings: ``results/TASK-MODEL.json``, and ``model_cards/NAME.json`` of the bundled models."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

from lightning_ham.evaluation.bars import missed
from lightning_ham.evaluation.record import Evaluation, LengthResult, errors_by_lengths, span
from lightning_ham.hub.card import Comparison, TrainingInfo
from lightning_ham.hub.files import WEIGHTS
from lightning_ham.hub.supervision import in_words, supervision
from lightning_ham.pictures.curve import CurvePoint
from lightning_ham.runs.folder import EVALUATION, TRAINING
from lightning_ham.runs.learning_curve import first_at
from lightning_ham.tasks import Lengths, built_in_tasks, find_task

CHECKOUT = Path(__file__).parent.parent.parent
"""The checkout of this package; a wheel has none."""
FOLDER = "results"
CARDS = "model_cards"

RANGES = [Lengths(1, 32), Lengths(33, 128), Lengths(129, 1024)]
"""Lengths for evaluating trained models; there is no bar for the last."""
EPISODES = [10_000, 10_000, 1_000]
"""Fresh episodes for each range."""

SOON_ERROR, SOON_LENGTHS, SOON_SECONDS = 0.01, "1-32", 1800
"""A recipe should reach this validation error at these lengths within this time."""

TITLES = {
    "ham": "HAM (ours)",
    "lstm": "LSTM",
    "lstm_attention": "LSTM+A",
    "paper-reinforce": "HAM, the paper's REINFORCE",
    "paper-soft": "HAM, soft attention",
}
"""Names of models in tables; the first one is the shipped recipe."""
COMPARISONS = ("lstm", "lstm_attention")
"""Models without a memory, for comparison."""


class Run(TypedDict):
    """One training and its results."""

    seed: int
    command: str
    num_parameters: int
    updates: int
    episodes: int
    seconds: float
    trained_on: str
    """See :func:`trained_on`."""
    supervision: str
    """What training told it, in words; see :mod:`lightning_ham.hub.supervision`."""
    max_time: str | None
    """Limit of the training time, ``DD:HH:MM:SS``."""
    first_at_one_percent: CurvePoint | None
    """The first validation with at most 1 % wrong at lengths 1-32; None if there was none."""
    reached_bar: bool | None
    """Whether every error meets the bar; None if the task has no bar."""
    weights_sha256: str
    machine: str
    versions: dict[str, str]
    commit: str | None
    evaluation_seed: int
    results: list[LengthResult]


class Results(TypedDict):
    """All seeds of one model on one task: the contents of ``results/TASK-MODEL.json``."""

    task: str
    model: str
    """One of :data:`TITLES`."""
    recipe: str
    overrides: list[str]
    """Overrides of the recipe."""
    recipe_digest: str
    """Digest of the recipe and the overrides, to tell seeds of another recipe apart."""
    bar: dict[str, float] | None
    runs: list[Run]


class Bundled(NamedTuple):
    """The content of ``model_cards/NAME.json`` for a bundled model."""

    name: str
    evaluation: Evaluation
    training: TrainingInfo


def check_checkout(folder: Path) -> None:
    """Raise a FileNotFoundError unless a folder is a checkout, with folders for records and cards."""
    for part in (FOLDER, CARDS):
        if not (folder / part).is_dir():
            raise FileNotFoundError(
                f"Expected a checkout of lightning_ham with the folder {folder / part}, but it is not there; name one "
                "with --output."
            )


def make_run(run_dir: Path) -> Run:
    """Return the record of a finished run folder.

    Raises:
        FileNotFoundError: If the run has not finished.
    """
    evaluation: Evaluation = json.loads((run_dir / EVALUATION).read_text(encoding="utf-8"))
    training: TrainingInfo = json.loads((run_dir / TRAINING).read_text(encoding="utf-8"))
    bar = bar_of(evaluation["task"])
    return {
        "seed": training["seed"],
        "command": training["command"],
        "num_parameters": evaluation["num_parameters"],
        "updates": training["updates"],
        "episodes": training["episodes"],
        "seconds": training["seconds"],
        "trained_on": trained_on(training["hyper_parameters"]),
        "supervision": in_words(supervision(evaluation["task"], training["hyper_parameters"])),
        "max_time": training["hyper_parameters"]["trainer"]["max_time"],
        "first_at_one_percent": first_at(training["curve"], SOON_LENGTHS, SOON_ERROR),
        "reached_bar": None if bar is None else meets(evaluation["results"], bar),
        "weights_sha256": sha256(run_dir / "model" / WEIGHTS),
        "machine": training["machine"],
        "versions": training["versions"],
        "commit": training["commit"],
        "evaluation_seed": evaluation["seed"],
        "results": evaluation["results"],
    }


def trained_on(hyper_parameters: Mapping[str, Any]) -> str:
    """Return the greatest length in a training, in words.

    >>> trained_on({"data": {"capacity": 64}})
    'up to 64'
    """
    return f"up to {hyper_parameters['data']['capacity']}"


def was_cut_off(seconds: float, max_time: str | None) -> bool:
    """Return whether a training was ended by its time limit (``DD:HH:MM:SS``), if it had one."""
    return max_time is not None and seconds >= seconds_of(max_time)


def max_time(budget: datetime.timedelta) -> str:
    """Return a duration in the Trainer's form, ``DD:HH:MM:SS``.

    >>> max_time(datetime.timedelta(minutes=90))
    '00:01:30:00'
    """
    minutes, seconds = divmod(round(budget.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days:02}:{hours:02}:{minutes:02}:{seconds:02}"


def seconds_of(max_time: str) -> int:
    """Return the seconds of a duration in the Trainer's form.

    >>> seconds_of("00:01:30:00")
    5400
    """
    days, hours, minutes, seconds = map(int, max_time.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def meets(results: Sequence[LengthResult], bar: Mapping[str, float]) -> bool:
    """Return whether the errors at all lengths of a bar were measured and meet it."""
    return not missed(bar, errors_by_lengths(results))


def wrong_counts(run_: Run) -> str:
    """Return the wrong sequences of a run in words.

    >>> result = {"lengths": [1, 32], "wrong_sequences": 3, "episodes": 10000}
    >>> wrong_counts({"results": [result]})
    '3 of 10,000 at 1-32'
    """
    return ", ".join(f"{r['wrong_sequences']:,} of {r['episodes']:,} at {span(r)}" for r in run_["results"])


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_results(folder: Path) -> list[Results]:
    """Return all results in a folder, sorted by task, then in the order of :data:`TITLES`."""
    read = [cast(Results, json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    return sorted(read, key=lambda results: (task_order(results["task"]), _order(TITLES, results["model"])))


def bar_of(task: str) -> dict[str, float] | None:
    """Return a task's bar; None if it has none."""
    found = find_task(task)
    return dict(found.bar) if found and found.bar else None


def task_order(task: str) -> tuple[int, str]:
    """Return the sort key of a task's name: the package's own tasks first, in the order of the paper."""
    return _order((known.name for known in built_in_tasks()), task)


def _order(known: Iterable[str], name: str) -> tuple[int, str]:
    names = list(known)
    return (names.index(name) if name in names else len(names)), name


def read_bundled(folder: Path) -> list[Bundled]:
    """Return the records of the bundled models in ``model_cards/``, sorted by name."""
    records = ((path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json")))
    return [Bundled(name, record["evaluation"], record["training"]) for name, record in records]


def all_lengths(runs: Sequence[Run]) -> list[str]:
    """Return the names of all measured ranges of lengths."""
    return list(dict.fromkeys(span(result) for run_ in runs for result in run_["results"]))


def median_run(runs: Sequence[Run], lengths: str) -> LengthResult | None:
    """Return the result of the median seed at these lengths (the worse of two); None if nothing was measured."""
    measured = [result for run_ in runs for result in run_["results"] if span(result) == lengths]
    measured.sort(key=lambda result: result["sequence_error"])
    return measured[len(measured) // 2] if measured else None


def comparisons(results: Sequence[Results], task: str) -> list[Comparison]:
    """Return the comparison models' results on a task for another model's card: the median seed at each length."""
    return [
        Comparison(
            f"{TITLES[entry['model']]} (median of {len(entry['runs'])} seeds)",
            entry["runs"][0]["num_parameters"],
            {
                lengths: median["sequence_error"]
                for lengths in all_lengths(entry["runs"])
                if (median := median_run(entry["runs"], lengths))
            },
        )
        for entry in results
        if entry["task"] == task and entry["model"] in COMPARISONS
    ]
