"""Training speed and memory: an update (forward, backward, clipping, Adam) of every network on Reverse."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from typing import TYPE_CHECKING

from benchmarks.peers import COMPARISON_MODELS, ENGINES, NOTES, PEERS
from benchmarks.report import (
    Result,
    Save,
    available_memory_mb,
    positive,
    progress,
    rounded,
    run,
    summary,
    table,
    target,
    targets_table,
)
from benchmarks.updates import Settings, Worker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTION = "Episodes a second and peak memory of training, for our engines, our comparison model and peers."
NAMES = (*ENGINES, *COMPARISON_MODELS, *PEERS)
RUNS = 5
LENGTHS = (8, 32, 128, 512)
MEMORY_SHARE = 0.7


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", nargs="+", choices=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--lengths", nargs="+", type=positive, metavar="N", help="default: 8 32 128 512; powers of two")
    parser.add_argument("--batch", type=positive, metavar="N", help="episodes of an update (default: 256)")
    parser.add_argument(
        "--limit_seconds", type=float, default=60.0, metavar="S", help="most that one update may take (default: 60)"
    )


def measure(options: argparse.Namespace, save: Save) -> Result:
    """Time all networks at every length, in turns."""
    quick = options.quick
    names = options.networks or (("reference", "auto", "torch_lstm") if quick else NAMES)
    lengths = options.lengths or ((8,) if quick else LENGTHS)
    batch = options.batch or (4 if quick else 256)
    available = available_memory_mb()
    limit_mb = None if available is None else MEMORY_SHARE * available
    result: Result = {
        "task": "reverse",
        "batch": batch,
        "limit_s": options.limit_seconds,
        "limit_mb": None if limit_mb is None else round(limit_mb),
        "rows": [],
        "skipped": [],
        "compilation": None,
        "ratios": [],
    }
    for length in lengths:
        settings = [
            Settings(name, length, batch, options.threads, limit_mb, options.limit_seconds, 0.05 if quick else 1.0)
            for name in names
        ]
        rows, skipped = measure_in_turns(settings, options.runs)
        result["rows"] += rows
        result["skipped"] += skipped
        result["ratios"] = ratios(result["rows"])
        save(result)
    if "fused" in names:
        result["compilation"] = compilation(Settings("fused", lengths[0], 2, options.threads, None, 60.0, 0.0))
    return result


def measure_in_turns(settings: list[Settings], runs: int) -> tuple[list[Result], list[Result]]:
    """Rows of those that could be measured, and why the others could not."""
    workers, rows, skipped = [], [], []

    def skip(worker: Worker, why: str) -> None:
        progress(f"n = {worker.settings.length}: no {worker.settings.name}: {why}")
        skipped.append({"engine": worker.settings.name, "n": worker.settings.length, "why": why})
        worker.close()

    try:
        for each in settings:
            progress(f"n = {each.length}: {each.name} ...")
            worker = Worker(each)
            workers.append(worker)
        answers: dict[Worker, list[Result]] = {worker: [] for worker in workers}
        for worker in workers:
            if worker.failed:
                skip(worker, worker.started["error"])
        for turn in range(runs):
            progress(f"n = {settings[0].length}: run {turn + 1} of {runs}")
            for worker in workers:
                if not worker.failed:
                    answer = worker.round()
                    if "error" in answer:
                        worker.started = answer
                        skip(worker, answer["error"])
                    else:
                        answers[worker].append(answer)
        rows = [row_of(worker, answers[worker]) for worker in workers if not worker.failed]
    finally:
        for worker in workers:
            worker.close()
    return rows, skipped


def row_of(worker: Worker, answers: list[Result]) -> Result:
    """The figures of one network at one length."""
    settings, batch = worker.settings, worker.started["batch"]
    speed = summary([batch / answer["update_s"] for answer in answers])
    notes = [NOTES[settings.name]] if settings.name in NOTES else []
    if batch < settings.batch:
        notes.append(f"batch {batch} instead of {settings.batch}: a larger one would go over the limits")
    return {
        "engine": settings.name,
        "n": settings.length,
        "batch": batch,
        "episodes_per_s": speed["median"],
        "episodes_per_s_quartiles": [speed["lower"], speed["upper"]],
        "update_s": rounded(statistics.median(answer["update_s"] for answer in answers)),
        "peak_mb": rounded(max(answer["peak_mb"] for answer in answers)),
        "parameters": worker.started["parameters"],
        "note": "; ".join(notes),
    }


def compilation(settings: Settings) -> Result | None:
    """Seconds of the fused engine's first update in a new process, with an empty cache and with a filled one."""
    progress("first update of the fused engine ...")
    seconds = {}
    with tempfile.TemporaryDirectory() as cache:
        for state in ("empty_cache_s", "filled_cache_s"):
            worker = Worker(settings, {"NUMBA_CACHE_DIR": cache})
            worker.close()
            if worker.failed:
                return None
            seconds[state] = rounded(worker.started["first_update_s"] - worker.started["second_update_s"])
    return seconds


def ratios(rows: list[Result]) -> list[Result]:
    """The figures that have a target."""
    speed = {(row["engine"], row["n"]): row["episodes_per_s"] for row in rows}

    def ratio(name: str, other: str, length: int) -> float | None:
        both = speed.get((name, length)), speed.get((other, length))
        return None if None in both else both[0] / both[1]

    return [
        target("episodes/s, fused over reference, n = 32", ratio("fused", "reference", 32), 4),
        target("episodes/s, fused over reference, n = 512", ratio("fused", "reference", 512), 10),
        target("episodes/s, auto over dnc, n = 32", ratio("auto", "dnc", 32), 10),
    ]


def markdown(result: Result) -> str:
    header = ("network", "n", "batch", "episodes/s", "quartiles", "update (s)", "peak (MB)", "parameters", "note")
    rows = [
        (
            row["engine"],
            row["n"],
            row["batch"],
            row["episodes_per_s"],
            " to ".join(f"{end:.4g}" for end in row["episodes_per_s_quartiles"]),
            row["update_s"],
            row["peak_mb"],
            row["parameters"],
            row["note"],
        )
        for row in result["rows"]
    ]
    parts = [
        f"Task {result['task']}, every episode of length n, batch {result['batch']} unless the row says otherwise.",
        table(header, rows),
        targets_table(result["ratios"]),
    ]
    if result["compilation"]:
        parts.append(
            f"The first update of the fused engine takes {result['compilation']['empty_cache_s']:.4g} s more than the "
            f"next one where nothing is compiled yet, and {result['compilation']['filled_cache_s']:.4g} s more in "
            "every later process. It is in none of the figures above."
        )
    if result["skipped"]:
        parts.append(
            "Not measured:\n\n" + table(("network", "n", "why"), (tuple(row.values()) for row in result["skipped"]))
        )
    return "\n\n".join(parts)


def plot(result: Result, figure: Figure) -> None:
    axes = figure.subplots(1, 2)
    for name in dict.fromkeys(row["engine"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["engine"] == name]
        style = "o-" if name in ENGINES else "s--"
        for axis, column in zip(axes, ("episodes_per_s", "peak_mb"), strict=True):
            # Memory grows with the batch, and a smaller one stands for rows that would not fit.
            scale = [1.0 if column == "episodes_per_s" else result["batch"] / row["batch"] for row in rows]
            axis.loglog(
                [row["n"] for row in rows],
                [factor * row[column] for factor, row in zip(scale, rows, strict=True)],
                style,
                label=name,
                markersize=3,
                linewidth=1,
            )
    for axis, label in zip(axes, ("episodes/s", f"peak MB, scaled to batch {result['batch']}"), strict=True):
        axis.set_xscale("log", base=2)
        axis.set(xlabel="length n", ylabel=label)
    axes[0].legend(fontsize=6)


if __name__ == "__main__":
    sys.exit(run("training"))
