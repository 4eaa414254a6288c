"""Makes RESULTS.md and the README's table of the bundled models from measured results.

Only the last section of RESULTS.md, ``results/found.md``, is written by hand.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from lightning_ham.evaluation.record import span
from lightning_ham.evaluation.words import percent
from lightning_ham.hub.card import duration
from lightning_ham.hub.supervision import in_words, supervision
from lightning_ham.reproduction.records import (
    CARDS,
    COMPARISONS,
    FOLDER,
    SOON_SECONDS,
    TITLES,
    Bundled,
    Results,
    Run,
    all_lengths,
    bar_of,
    median_run,
    read_bundled,
    read_results,
    trained_on,
    was_cut_off,
    wrong_counts,
)
from lightning_ham.tasks import find_task

REPORT = "RESULTS.md"
FOUND = "found.md"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->"


def render_report(results: Sequence[Results], bundled: Sequence[Bundled], found: str) -> str:
    """Return the text of RESULTS.md.

    Args:
        results: See :func:`read_results`.
        bundled: See :func:`read_bundled`.
        found: The section written by hand, in Markdown.
    """
    tasks = list(dict.fromkeys(entry["task"] for entry in results))
    parts = [_INTRODUCTION]
    if results:
        parts.append(f"## Overview\n\n{_OVERVIEW}\n\n{_overview(results, tasks)}")
        for task in tasks:
            of_task = [entry for entry in results if entry["task"] == task]
            parts.append(f"## {task.replace('_', ' ').capitalize()}\n\n{_sizes(task, of_task)}{_task_section(of_task)}")
    else:
        parts.append("## Overview\n\nNothing was reproduced yet.")
    parts.append(f"## The bundled models\n\n{render_models(bundled, results)}")
    parts.append(f"## What was found\n\n{found.strip()}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


_INTRODUCTION = """\
# Results

Made by `python -m lightning_ham.reproduce`, which trains every recipe and the comparison models with several seeds, and
evaluates each on fresh episodes. The command of every training is below, with its time limit (`--trainer.max_time`), if
any; "cut off" means that the limit ended the training before its recipe did. `python -m lightning_ham.results` makes
this page from `results/*.json`; only the last section is written by hand.

A sequence is wrong if any of its bits is wrong, its end included; branches and bits are decided at probability 1/2.
Intervals are Wilson's, 95 %. The parameters are the same at all lengths. The comparison models LSTM (encoder-decoder)
and LSTM+A (with attention) have more parameters than the HAM; their recipe is the same, but without a guide:
curriculum, batches and most updates. Compare their updates and times, too. The paper's figures come from its own models
(arXiv 1602.03218v2), each after up to 5,000,000 episodes.

Supervision is what training told a model:

- *answers*: only the bits that the paper scores; its own models learned from nothing else;
- *echo*: further outputs that repeat a part of the input or of the answer, never scored;
- *state*: further outputs that tell what state the memory is in, never scored;
- *guide*: which leaf to attend to (`model.supervision.guided_fraction`).

The last three come beside the answers."""

_OVERVIEW = """\
Wrong sequences of the median seed at lengths 1-32 / 33-128; the bar for both, and how many seeds reached it; how many
seeds had at most 1 % wrong at 1-32 within 30 minutes of training. These counts, and the supervision, are of our HAM."""


def _overview(results: Sequence[Results], tasks: Sequence[str]) -> str:
    models = [model for model in TITLES if any(entry["model"] == model for entry in results)]
    header = [
        "task",
        "supervision",
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
        bar = bar_of(task)
        rows.append(
            [
                task,
                _supervision(ours["runs"]) if ours else "",
                " / ".join(percent(most) for most in bar.values()) if bar else "",
                _reached(ours["runs"]) if ours else "",
                _soon(ours["runs"]) if ours else "",
                *(_both(by_model[model]["runs"]) if model in by_model else "" for model in models),
                " / ".join(_paper(task, lengths, "ham") or "-" for lengths in ("1-32", "33-128")),
            ]
        )
    return table(header, rows)


def _supervision(runs: Sequence[Run]) -> str:
    return " or ".join(dict.fromkeys(run_.get("supervision", "") for run_ in runs))


def _both(runs: Sequence[Run]) -> str:
    medians = (median_run(runs, lengths) for lengths in ("1-32", "33-128"))
    return " / ".join(percent(result["sequence_error"]) if result else "-" for result in medians)


def _paper(task: str, lengths: str, model: str) -> str | None:
    found = find_task(task)
    figure = found.paper_error(lengths, {"paper-reinforce": "ham"}.get(model, model)) if found else None
    return None if figure is None else f"{figure} %"


def _reached(runs: Sequence[Run]) -> str:
    judged = [run_["reached_bar"] for run_ in runs if run_["reached_bar"] is not None]
    return f"{sum(judged)} of {len(judged)}" if judged else ""


def _soon(runs: Sequence[Run]) -> str:
    firsts = [run_["first_at_one_percent"] for run_ in runs]
    return f"{sum(first is not None and first['seconds'] <= SOON_SECONDS for first in firsts)} of {len(firsts)}"


def _sizes(task: str, of_task: Sequence[Results]) -> str:
    """Return a paragraph with the lengths in the task's own units, if those differ from cells."""
    runs = [run_ for entry in of_task for run_ in entry["runs"]]
    lengths = [result["lengths"] for run_ in runs for result in run_["results"]]
    sizes = found.sizes_in_words(lengths) if (found := find_task(task)) else ""
    return f"{sizes}\n\n" if sizes else ""


def _task_section(of_task: Sequence[Results]) -> str:
    errors, trainings, seeds = [], [], []
    for entry in of_task:
        task, model, runs = entry["task"], entry["model"], entry["runs"]
        title = TITLES.get(model, model)
        for row, lengths in enumerate(all_lengths(runs)):
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
                    "supervision",
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


def _error_cells(runs: Sequence[Run], lengths: str) -> list[str]:
    measured = [result for run_ in runs for result in run_["results"] if span(result) == lengths]
    shares = [result["sequence_error"] for result in measured]
    median = median_run(runs, lengths)
    assert median is not None  # the lengths come from a run
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
        _supervision(runs),
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


# The README's table, which is also in RESULTS.md.


def render_models(bundled: Sequence[Bundled], results: Sequence[Results]) -> str:
    """Return the table of the bundled models, a row for each evaluated range of lengths."""
    compared = [model for model in COMPARISONS if any(entry["model"] == model for entry in results)]
    header = ["model", "lengths", "wrong sequences", "share (95 % interval)"]
    header += [
        *(TITLES[model] for model in compared),
        "the paper's model",
        "supervision",
        "trained on lengths",
        "training",
    ]
    return table(header, (row for model in bundled for row in _model_rows(model, results, compared)))


def _model_rows(model: Bundled, results: Sequence[Results], compared: Sequence[str]) -> Iterator[list[str]]:
    evaluation, training = model.evaluation, model.training
    task = evaluation["task"]
    others = {entry["model"]: entry["runs"] for entry in results if entry["task"] == task}
    for row, result in enumerate(evaluation["results"]):
        low, high = result["interval"]
        beside = (median_run(others.get(name, []), span(result)) for name in compared)
        yield [
            "" if row else f"`{model.name}`",
            span(result),
            f"{result['wrong_sequences']:,} of {result['episodes']:,}",
            f"{percent(result['sequence_error'])} ({percent(low)} to {percent(high)})",
            *("" if other is None else percent(other["sequence_error"]) for other in beside),
            _paper(task, span(result), "ham") or "",
            "" if row else in_words(supervision(task, training["hyper_parameters"])),
            "" if row else trained_on(training["hyper_parameters"]),
            "" if row else f"{duration(training['seconds'])}, seed {training['seed']}, {training['machine']}",
        ]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def replace(readme: str, models: str) -> str:
    """Return the README with the table of the models between its two marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"Expected {BEGIN.strip()} and then {END} in the README, but one of them is missing.")
    return f"{before}{begin}{models}\n{end}{after}"


def write(folder: Path) -> list[Path]:
    """Write RESULTS.md, and the table in README.md if it has one, in a folder with ``results/``.

    Returns:
        The written files.
    """
    results, bundled = read_results(folder / FOLDER), read_bundled(folder / CARDS)
    found = folder / FOLDER / FOUND
    words = found.read_text(encoding="utf-8") if found.is_file() else f"Nothing was written in `{FOLDER}/{FOUND}` yet."
    pages = {folder / REPORT: render_report(results, bundled, words)}
    readme = folder / "README.md"
    if readme.is_file() and BEGIN in (text := readme.read_text(encoding="utf-8")):
        pages[readme] = replace(text, render_models(bundled, results))
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return list(pages)
