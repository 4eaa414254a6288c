"""The tables of results: ``python -m lightning_ham.results`` writes RESULTS.md and the README's table anew.

For maintainers, in a checkout. What :mod:`lightning_ham.reproduce` measured lies in ``results/TASK-MODEL.json``, and
what is known of a bundled model in ``model_cards/NAME.json``. The tables are made of these files alone; the only words
written by hand are those of ``results/found.md``, which RESULTS.md ends with.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

from lightning_ham.command_line import CommandParser, run
from lightning_ham.hub.card import Comparison, CurvePoint, TrainingInfo, duration, percent
from lightning_ham.hub.paper import paper_error
from lightning_ham.learning_curve import first_at
from lightning_ham.training.evaluation import Evaluation, LengthResult

CHECKOUT = Path(__file__).parent.parent
FOLDER = "results"
REPORT = "RESULTS.md"
FOUND = "found.md"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->"

BARS: dict[str, dict[str, float]] = {
    "reverse": {"1-32": 0.0, "33-128": 0.0},
    "search": {"1-32": 0.0005, "33-128": 0.003},
    "merge": {"1-32": 0.0005, "33-128": 0.005},
    "sort": {"1-32": 0.0, "33-128": 0.001},
    "add": {"1-32": 0.0, "33-128": 0.005},
    "stack": {"1-32": 0.0, "33-128": 0.0},
    "queue": {"1-32": 0.0, "33-128": 0.0},
    "priority_queue": {"1-32": 0.0002, "33-128": 0.001},
}
"""Share of wrong sequences that a trained model is to have at most, by task and lengths."""

RANGES = [(1, 32), (33, 128), (129, 1024)]
"""Lengths that trained models are evaluated on; no bar is set for the last."""
EPISODES = [10_000, 10_000, 1_000]
"""Fresh episodes for each of them."""

SOON_ERROR, SOON_LENGTHS, SOON_SECONDS = 0.01, "1-32", 1800
"""A recipe is to reach this validation error at these lengths in this time."""

TITLES = {
    "ham": "HAM (ours)",
    "lstm": "LSTM",
    "lstm_attention": "LSTM+A",
    "paper-reinforce": "HAM, the paper's REINFORCE",
    "paper-soft": "HAM, soft attention",
}
"""What models are called in tables; the first is the recipe as it is shipped."""


class Run(TypedDict):
    """One training and what came of it."""

    seed: int
    command: str
    num_parameters: int
    updates: int
    episodes: int
    seconds: float
    trained_on: str
    """See :func:`trained_on`."""
    max_time: str | None
    """Longest that it was allowed to train, ``DD:HH:MM:SS``."""
    first_at_one_percent: CurvePoint | None
    """The first validation with at most 1 % wrong at lengths 1-32; None if there was none."""
    reached_bar: bool | None
    """Whether every error is at most the bar's; None where the task has none."""
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
    """What was said otherwise than by the recipe."""
    recipe_digest: str
    """Of what the recipe and the overrides say, so that seeds of another recipe are told apart."""
    bar: dict[str, float] | None
    runs: list[Run]


class Bundled(NamedTuple):
    """What ``model_cards/NAME.json`` says of a bundled model."""

    name: str
    evaluation: Evaluation
    training: TrainingInfo


def make_run(run_dir: Path) -> Run:
    """Return what is known of a finished run folder.

    Raises:
        FileNotFoundError: If the run has not ended.
    """
    evaluation: Evaluation = json.loads((run_dir / "evaluation.json").read_text(encoding="utf-8"))
    training: TrainingInfo = json.loads((run_dir / "training.json").read_text(encoding="utf-8"))
    bar = BARS.get(evaluation["task"])
    return {
        "seed": training["seed"],
        "command": training["command"],
        "num_parameters": evaluation["num_parameters"],
        "updates": training["updates"],
        "episodes": training["episodes"],
        "seconds": training["seconds"],
        "trained_on": trained_on(training["hyper_parameters"]),
        "max_time": training["hyper_parameters"]["trainer"]["max_time"],
        "first_at_one_percent": first_at(training["curve"], SOON_LENGTHS, SOON_ERROR),
        "reached_bar": None if bar is None else meets(evaluation["results"], bar),
        "weights_sha256": sha256(run_dir / "model" / "model.safetensors"),
        "machine": training["machine"],
        "versions": training["versions"],
        "commit": training["commit"],
        "evaluation_seed": evaluation["seed"],
        "results": evaluation["results"],
    }


def trained_on(hyper_parameters: Mapping[str, Any]) -> str:
    """Return the longest instances of a training, and whether it was shown where to attend, in words.

    >>> trained_on({"data": {"capacity": 64}, "model": {"guided_fraction": 1.0}})
    'up to 64, guided'
    """
    guided = ", guided" if hyper_parameters["model"].get("guided_fraction") else ""
    return f"up to {hyper_parameters['data']['capacity']}{guided}"


def was_cut_off(seconds: float, max_time: str | None) -> bool:
    """Return whether a training of so many seconds was ended by its limit (``DD:HH:MM:SS``), if it had one."""
    return max_time is not None and seconds >= seconds_of(max_time)


def max_time(budget: datetime.timedelta) -> str:
    """Return a duration as the Trainer takes it, ``DD:HH:MM:SS``.

    >>> max_time(datetime.timedelta(minutes=90))
    '00:01:30:00'
    """
    minutes, seconds = divmod(round(budget.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days:02}:{hours:02}:{minutes:02}:{seconds:02}"


def seconds_of(max_time: str) -> int:
    """Return the seconds of a duration as the Trainer takes it.

    >>> seconds_of("00:01:30:00")
    5400
    """
    days, hours, minutes, seconds = map(int, max_time.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def meets(results: Sequence[LengthResult], bar: Mapping[str, float]) -> bool:
    """Return whether the error at all lengths of a bar was measured, and is at most as it says."""
    errors = {span(result): result["sequence_error"] for result in results}
    return all(lengths in errors and errors[lengths] <= most for lengths, most in bar.items())


def span(result: LengthResult) -> str:
    """Return the lengths of a result as they are written, such as ``1-32``."""
    return "-".join(map(str, result["lengths"]))


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


def write_json(path: Path, data: object) -> None:
    """Write JSON that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def read_results(folder: Path) -> list[Results]:
    """Return all results in a folder: by task, and for a task in the order of :data:`TITLES`."""
    read = [cast(Results, json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    return sorted(read, key=lambda results: (_order(BARS, results["task"]), _order(TITLES, results["model"])))


def _order(known: Iterable[str], name: str) -> tuple[int, str]:
    names = list(known)
    return (names.index(name) if name in names else len(names)), name


def read_bundled(folder: Path) -> list[Bundled]:
    """Return what is known of the bundled models, by name, from ``model_cards/``."""
    records = ((path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json")))
    return [Bundled(name, record["evaluation"], record["training"]) for name, record in records]


def median_run(runs: Sequence[Run], lengths: str) -> LengthResult | None:
    """Return the result of the middle seed at these lengths, the worse of two; None where nothing was measured."""
    measured = [result for run_ in runs for result in run_["results"] if span(result) == lengths]
    measured.sort(key=lambda result: result["sequence_error"])
    return measured[len(measured) // 2] if measured else None


def comparisons(results: Sequence[Results], task: str) -> list[Comparison]:
    """Return how the comparison models did on a task, the median seed at each length, for the card of another model."""
    return [
        Comparison(
            f"{TITLES[entry['model']]} (median of {len(entry['runs'])} seeds)",
            entry["runs"][0]["num_parameters"],
            {
                lengths: median["sequence_error"]
                for lengths in _all_lengths(entry["runs"])
                if (median := median_run(entry["runs"], lengths))
            },
        )
        for entry in results
        if entry["task"] == task and entry["model"] in ("lstm", "lstm_attention")
    ]


# RESULTS.md


def render_report(results: Sequence[Results], bundled: Sequence[Bundled], found: str) -> str:
    """Return the text of RESULTS.md.

    Args:
        results: See :func:`read_results`.
        bundled: See :func:`read_bundled`.
        found: The words written by hand, in Markdown.
    """
    tasks = list(dict.fromkeys(entry["task"] for entry in results))
    parts = [_INTRODUCTION]
    if results:
        parts.append(f"## Overview\n\n{_OVERVIEW}\n\n{_overview(results, tasks)}")
        for task in tasks:
            of_task = [entry for entry in results if entry["task"] == task]
            parts.append(f"## {task.replace('_', ' ').capitalize()}\n\n{_task_section(of_task)}")
    else:
        parts.append("## Overview\n\nNothing was reproduced yet.")
    parts.append(f"## The bundled models\n\n{render_models(bundled, results)}")
    parts.append(f"## What was found\n\n{found.strip()}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


_INTRODUCTION = """\
# Results

Made by `python -m lightning_ham.reproduce`, which trains every recipe and the comparison models with several seeds, and
evaluates each on fresh episodes. The command of every training is below, with the longest time that it was given
(`--trainer.max_time`), where it had a limit; "cut off" are those that did not come to their recipe's end in it. The
page is made from `results/*.json`, by `python -m lightning_ham.results`; nothing on it is typed but its last section.

A sequence is wrong if a single bit of it is, its end included; branches and bits are decided at probability 1/2.
Intervals are Wilson's, 95 %. The parameters are the same at all lengths. "Guided" means that training showed the memory
which leaves to attend to (`model.guided_fraction`); the paper's models and the comparison models learned without. The
comparison models LSTM (encoder-decoder) and LSTM+A (with attention) have more parameters than the HAM; they are trained
with the same recipe: curriculum, batches and most updates. Compare their updates and times, too. The paper's
figures are those of its own models (arXiv 1602.03218v2), each after up to 5,000,000 episodes."""

_OVERVIEW = """\
Wrong sequences of the median seed at lengths 1-32 and 33-128; the bar that a model is to reach in both, and how many
seeds did; how many seeds had at most 1 % wrong at 1-32 within 30 minutes of training."""


def _overview(results: Sequence[Results], tasks: Sequence[str]) -> str:
    models = [model for model in TITLES if any(entry["model"] == model for entry in results)]
    header = [
        "task",
        "bar",
        "reached the bar",
        "1 % within 30 min",
        *(TITLES[model] for model in models),
        "paper's HAM",
    ]
    rows = []
    for task in tasks:
        by_model = {entry["model"]: entry for entry in results if entry["task"] == task}
        ours = by_model.get("ham")
        bar = BARS.get(task)
        rows.append(
            [
                task,
                " / ".join(percent(most) for most in bar.values()) if bar else "",
                _reached(ours["runs"]) if ours else "",
                _soon(ours["runs"]) if ours else "",
                *(_both(by_model[model]["runs"]) if model in by_model else "" for model in models),
                " / ".join(_paper(task, lengths, "ham") or "-" for lengths in ("1-32", "33-128")),
            ]
        )
    return table(header, rows)


def _both(runs: Sequence[Run]) -> str:
    medians = (median_run(runs, lengths) for lengths in ("1-32", "33-128"))
    return " / ".join(percent(result["sequence_error"]) if result else "-" for result in medians)


def _paper(task: str, lengths: str, model: str) -> str | None:
    figure = paper_error(task, lengths, {"paper-reinforce": "ham"}.get(model, model))
    return None if figure is None else f"{figure} %"


def _reached(runs: Sequence[Run]) -> str:
    judged = [run_["reached_bar"] for run_ in runs if run_["reached_bar"] is not None]
    return f"{sum(judged)} of {len(judged)}" if judged else ""


def _soon(runs: Sequence[Run]) -> str:
    firsts = [run_["first_at_one_percent"] for run_ in runs]
    return f"{sum(first is not None and first['seconds'] <= SOON_SECONDS for first in firsts)} of {len(firsts)}"


def _task_section(of_task: Sequence[Results]) -> str:
    errors, trainings, seeds = [], [], []
    for entry in of_task:
        task, model, runs = entry["task"], entry["model"], entry["runs"]
        title = TITLES.get(model, model)
        for row, lengths in enumerate(_all_lengths(runs)):
            errors.append(
                ["" if row else title, lengths, *_error_cells(runs, lengths), _paper(task, lengths, model) or ""]
            )
        trainings.append([title, *_training_cells(runs)])
        seeds += [[title if not row else "", *_seed_cells(run_)] for row, run_ in enumerate(runs)]
    return "\n\n".join(
        [
            table(
                [
                    "model",
                    "lengths",
                    "wrong, median seed",
                    "95 % interval",
                    "best to worst seed",
                    "wrong bits",
                    "the paper",
                ],
                errors,
            ),
            table(
                [
                    "model",
                    "trained on lengths",
                    "parameters",
                    "seeds",
                    "reached the bar",
                    "1 % at 1-32 after",
                    "updates",
                    "training",
                ],
                trainings,
            ),
            "<details><summary>Every seed</summary>",
            table(["model", "seed", "wrong", "bar", "1 % at 1-32 after", "updates", "training", "weights"], seeds),
            "Commands and machines:",
            "\n".join(
                dict.fromkeys(f"- `{run_['command']}` ({run_['machine']})" for e in of_task for run_ in e["runs"])
            ),
            "</details>",
        ]
    )


def _all_lengths(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(span(result) for run_ in runs for result in run_["results"]))


def _error_cells(runs: Sequence[Run], lengths: str) -> list[str]:
    measured = [result for run_ in runs for result in run_["results"] if span(result) == lengths]
    shares = [result["sequence_error"] for result in measured]
    median = median_run(runs, lengths)
    assert median is not None  # the lengths are those of a run
    low, high = median["interval"]
    return [
        f"{median['wrong_sequences']:,} of {median['episodes']:,}",
        f"{percent(median['sequence_error'])} ({percent(low)} to {percent(high)})",
        f"{percent(min(shares))} to {percent(max(shares))}",
        percent(statistics.median(result["bit_error"] for result in measured)),
    ]


def _training_cells(runs: Sequence[Run]) -> list[str]:
    def median(value: Callable[[Run], float]) -> float:
        return statistics.median(map(value, runs))

    firsts = [run_["first_at_one_percent"] for run_ in runs if run_["first_at_one_percent"]]
    first = duration(statistics.median(point["seconds"] for point in firsts)) if firsts else "never"
    never = f", {len(runs) - len(firsts)} never" if firsts and len(firsts) < len(runs) else ""
    return [
        " or ".join(dict.fromkeys(run_["trained_on"] for run_ in runs)),
        " or ".join(f"{number:,}" for number in dict.fromkeys(run_["num_parameters"] for run_ in runs)),
        str(len(runs)),
        _reached(runs),
        f"{first}{never}",
        f"{median(lambda run_: run_['updates']):,.0f}",
        duration(median(lambda run_: run_["seconds"])),
    ]


def _seed_cells(run_: Run) -> list[str]:
    first = run_["first_at_one_percent"]
    return [
        str(run_["seed"]),
        wrong_counts(run_),
        {True: "reached", False: "missed", None: ""}[run_["reached_bar"]],
        f"{duration(first['seconds'])}, {first['update']:,} updates" if first else "never",
        f"{run_['updates']:,}",
        duration(run_["seconds"]) + (", cut off" if was_cut_off(run_["seconds"], run_["max_time"]) else ""),
        f"`{run_['weights_sha256'][:12]}`",
    ]


# The README's table, which RESULTS.md has too.


def render_models(bundled: Sequence[Bundled], results: Sequence[Results]) -> str:
    """Return the table of the bundled models, a row for each range of lengths that they were evaluated on."""
    compared = [model for model in ("lstm", "lstm_attention") if any(entry["model"] == model for entry in results)]
    header = ["model", "lengths", "wrong sequences", "share (95 % interval)"]
    header += [*(TITLES[model] for model in compared), "the paper's model", "trained on lengths", "training"]
    return table(header, (row for model in bundled for row in _model_rows(model, results, compared)))


def _model_rows(model: Bundled, results: Sequence[Results], compared: Sequence[str]) -> Iterator[list[str]]:
    evaluation, training = model.evaluation, model.training
    task = evaluation["task"]
    others = {entry["model"]: entry["runs"] for entry in results if entry["task"] == task}
    for row, result in enumerate(evaluation["results"]):
        low, high = result["interval"]
        beside = (median_run(others.get(name, []), span(result)) for name in compared)
        paper = paper_error(task, span(result), "ham")
        yield [
            "" if row else f"`{model.name}`",
            span(result),
            f"{result['wrong_sequences']:,} of {result['episodes']:,}",
            f"{percent(result['sequence_error'])} ({percent(low)} to {percent(high)})",
            *("" if other is None else percent(other["sequence_error"]) for other in beside),
            "" if paper is None else f"{paper} %",
            "" if row else trained_on(training["hyper_parameters"]),
            "" if row else f"{duration(training['seconds'])}, seed {training['seed']}, {training['machine']}",
        ]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def replace(readme: str, models: str) -> str:
    """Return the text of the README with the table of the models between its two marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"Expected {BEGIN.strip()} and then {END} in the README, but one of them is missing.")
    return f"{before}{begin}{models}\n{end}{after}"


def write(folder: Path) -> list[Path]:
    """Write RESULTS.md, and the table in README.md where there is one, in a folder that has ``results/``.

    Returns:
        The files that were written.
    """
    results, bundled = read_results(folder / FOLDER), read_bundled(folder / "model_cards")
    found = folder / FOLDER / FOUND
    words = found.read_text(encoding="utf-8") if found.is_file() else f"Nothing was written in `{FOLDER}/{FOUND}` yet."
    pages = {folder / REPORT: render_report(results, bundled, words)}
    readme = folder / "README.md"
    if readme.is_file() and BEGIN in (text := readme.read_text(encoding="utf-8")):
        pages[readme] = replace(text, render_models(bundled, results))
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return list(pages)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables; return the exit status."""
    parser = CommandParser("results", "Write RESULTS.md and the README's table from results/ and model_cards/.")
    parser.add_argument("--output", type=Path, default=CHECKOUT, metavar="DIR", help="the checkout (default: this one)")
    arguments = parser.parse(argv)
    try:
        written: list[Any] = write(arguments.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write("".join(f"Wrote {path}\n" for path in written))
    return 0


if __name__ == "__main__":
    run(main)
