"""How far an update is from what its arithmetic alone would take.

The multiply-adds that the algorithm needs are counted by a formula (a test holds the formula against PyTorch's own
counter), and divided by the rate of a large matrix product on the same threads.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from typing import TYPE_CHECKING, NamedTuple

import torch

from benchmarks.peers import CONTROLLER_SIZE, HAM_OPTIONS
from benchmarks.report import (
    Result,
    Save,
    calls_for,
    positive,
    progress,
    rounded,
    run,
    table,
    target,
    targets_table,
    time_calls,
)
from benchmarks.updates import Settings, Trainee, Worker
from lightning_ham.tasks import get_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTION = "The arithmetic of one update over the machine's rate of matrix products, against the time it takes."
RUNS = 5
LENGTHS = (8, 32, 128, 512)
LARGE = 2048
PROFILED = 32
"""Length of the episodes that are profiled."""
PARTS = {
    "compiled loops, forward": ("_Episodes",),
    "compiled loops, backward": ("_EpisodesBackward",),
    "PyTorch's matrix products (EMBED, output)": ("aten::mm", "aten::addmm", "aten::bmm"),
}
"""What the profiler's events are called, by what is told of them; the first two are those of the engine ``fused``."""


class Sizes(NamedTuple):
    """Of an LSTM+HAM with JOIN ``gated``; the paper's symbols in brackets."""

    input_size: int
    output_size: int
    controller_size: int = CONTROLLER_SIZE
    """(l)"""
    leaf_size: int = HAM_OPTIONS["leaf_size"]
    """(d)"""
    hidden_size: int = HAM_OPTIONS["hidden_size"]


class Count(NamedTuple):
    """Multiply-adds of one episode in matrix products."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Both ways."""
        return self.forward + self.backward


def multiply_adds(sizes: Sizes, num_leaves: int, timesteps: int, *, as_reference: bool = False) -> dict[str, Count]:
    """Multiply-adds of one episode with ``straight_through``, by component; one access a timestep.

    A product that has a gradient on both sides costs twice as much backward as forward. Not counted is what is no
    matrix product: activations, gates, gathers.

    Args:
        sizes: Of the network.
        num_leaves: Leaves of the tree, all of them filled (n).
        timesteps: Outputs.
        as_reference: Count what the engine ``reference`` computes rather than what is needed: it searches the path
            twice, projects the query anew in every round of a descent, and writes after the last output.
    """
    b, o, l, d, h = sizes  # noqa: E741 - the paper's symbol
    n, depth = num_leaves, int(math.log2(num_leaves))
    node = d * h + h  # SEARCH at one node, with the query's share at hand
    join = 2 * d * h + h * 3 * d
    accesses = timesteps
    writes = timesteps if as_reference else timesteps - 1
    searches = depth * accesses
    siblings = depth * (depth - 1) // 2 * accesses  # rounds of the descents from what the path left aside
    projections = accesses
    again = (searches * node + depth * accesses * l * h) if as_reference else 0
    return {
        "embed": Count(n * (b * h + h * d), n * (b * h + 2 * h * d)),
        "build": Count((n - 1) * join, 2 * (n - 1) * join),
        "search": Count(searches * node + projections * l * h + again, 2 * (searches * node + projections * l * h)),
        "counterfactual search": Count(siblings * node, 0),
        "counterfactual read": Count(searches * d, searches * d),
        "lstm": Count(accesses * 4 * l * (d + l), 2 * accesses * 4 * l * (d + l)),
        "write": Count(writes * (d + l) * 2 * d, 2 * (timesteps - 1) * (d + l) * 2 * d),
        "re-join": Count(writes * depth * join, 2 * (timesteps - 1) * depth * join),
        "output": Count(timesteps * (l + d) * o, 2 * timesteps * (l + d) * o),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lengths", nargs="+", type=positive, metavar="N", help="default: 8 32 128 512; powers of two")
    parser.add_argument("--batch", type=positive, metavar="N", help="episodes of an update (default: 256)")
    parser.add_argument("--engine", default="auto", metavar="NAME", help="default: auto")


def measure(options: argparse.Namespace, save: Save) -> Result:
    """Time updates and matrix products in turns."""
    torch.set_num_threads(options.threads)
    batch = options.batch or (4 if options.quick else 256)
    task = get_task("reverse")
    sizes = Sizes(task.input_size, task.output_size)
    large = LARGE // 8 if options.quick else LARGE
    result: Result = {
        "engine": options.engine,
        "sizes": sizes._asdict(),
        "product_size": large,
        "rows": [],
        "profile": None,
    }
    for length in options.lengths or ((8,) if options.quick else LENGTHS):
        progress(f"n = {length} ...")
        worker = Worker(
            Settings(options.engine, length, batch, options.threads, None, 600.0, 0.05 if options.quick else 1.0)
        )
        try:
            result["rows"].append(row(sizes, worker, options.runs, large))
        finally:
            worker.close()
        result["ratios"] = ratios(result["rows"])
        save(result)
    progress("profile ...")
    length = 8 if options.quick else PROFILED
    result["profile"] = profile(Settings(options.engine, length, batch, options.threads, None, 600.0, 0.0))
    return result


def profile(settings: Settings, updates: int = 10) -> Result:
    """Where the time of an update goes, by PyTorch's profiler, in shares of the whole."""
    trainee = Trainee(settings)
    trainee.draw(settings.batch)
    for _ in range(3):
        trainee.update()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(updates):
            trainee.update()
    seconds = {event.key: event.self_cpu_time_total / 1e6 / updates for event in profiler.key_averages()}
    total = sum(seconds.values())
    shares = {name: sum(seconds.pop(key, 0.0) for key in keys) / total for name, keys in PARTS.items()}
    shares["all other operations of PyTorch"] = sum(seconds.values()) / total
    return {"n": settings.length, "shares": {name: rounded(share) for name, share in shares.items()}}


def row(sizes: Sizes, worker: Worker, runs: int, large: int) -> Result:
    """The limit and the measured time of one length."""
    settings = worker.settings
    products = {"large": (large, large, large), "ours": search_product(sizes, settings.length, settings.batch)}
    rates: dict[str, list[float]] = {name: [] for name in products}
    seconds = []
    for _ in range(runs):
        answer = worker.started if worker.failed else worker.round()
        if "error" in answer:
            raise RuntimeError(f"The engine {settings.name} could not be timed: {answer['error']}")
        seconds.append(answer["update_s"])
        for name, shape in products.items():
            rates[name].append(product_rate(*shape))
    counts = multiply_adds(sizes, settings.length, get_task(settings.task).timesteps_for(settings.length))
    needed = settings.batch * sum(count.total for count in counts.values())
    limit_s = needed / statistics.median(rates["large"])
    measured_s = statistics.median(seconds)
    return {
        "n": settings.length,
        "batch": settings.batch,
        "multiply_adds": needed,
        "by_component": {name: settings.batch * count.total for name, count in counts.items()},
        "multiply_adds_per_s": rounded(statistics.median(rates["large"])),
        "multiply_adds_per_s_at_our_size": rounded(statistics.median(rates["ours"])),
        "limit_s": rounded(limit_s),
        "measured_s": rounded(measured_s),
        "distance": rounded(measured_s / limit_s),
    }


def search_product(sizes: Sizes, length: int, batch: int) -> tuple[int, int, int]:
    """Rows, inner size and columns of the largest product that a timestep can make at once: SEARCH on all paths."""
    return batch * int(math.log2(length)), sizes.leaf_size, sizes.hidden_size


def product_rate(rows: int, inner: int, columns: int) -> float:
    """Multiply-adds a second of a matrix product."""
    left, right, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)

    def product() -> None:
        torch.mm(left, right, out=out)

    return rows * inner * columns / time_calls(product, calls_for(product, 0.05))


def ratios(rows: list[Result]) -> list[Result]:
    """The figure that has a target."""
    distances = [row["distance"] for row in rows if (row["n"], row["batch"]) == (32, 256)]
    what = "measured over the arithmetic's limit, n = 32, batch 256"
    return [target(what, distances[0] if distances else None, 3, at_most=True)]


def markdown(result: Result) -> str:
    header = ("n", "batch", "multiply-adds", "a second", "a second, SEARCH's product", "limit (s)", "measured (s)")
    columns = ("n", "batch", "multiply_adds", "multiply_adds_per_s", "multiply_adds_per_s_at_our_size", "limit_s")
    columns += ("measured_s", "distance")
    components = list(result["rows"][0]["by_component"])
    shares = (
        [row["n"], *(f"{100 * count / row['multiply_adds']:.1f} %" for count in row["by_component"].values())]
        for row in result["rows"]
    )
    parts = [
        f"Engine {result['engine']}; one update on Reverse: forward, backward, clipping, Adam. The rate is that of "
        f"a product of two {result['product_size']} x {result['product_size']} matrices in float32; beside it is "
        "that of the product that SEARCH makes in one timestep.",
        table((*header, "distance"), ([row[column] for column in columns] for row in result["rows"])),
        targets_table(result["ratios"]),
        "Share of the multiply-adds:",
        table(("n", *components), shares),
    ]
    if profiled := result["profile"]:
        parts += [
            f"Where the time of an update goes at n = {profiled['n']}, by PyTorch's profiler:",
            table(("part", "share"), ([name, f"{100 * share:.1f} %"] for name, share in profiled["shares"].items())),
        ]
    return "\n\n".join(parts)


def plot(result: Result, figure: Figure) -> None:
    axis = figure.subplots()
    lengths = [row["n"] for row in result["rows"]]
    for column, label in (("limit_s", "the arithmetic alone"), ("measured_s", "measured")):
        axis.loglog(lengths, [row[column] for row in result["rows"]], "o-", label=label)
    axis.set_xscale("log", base=2)
    axis.set(xlabel="length n", ylabel="seconds of an update")
    axis.legend()


if __name__ == "__main__":
    sys.exit(run("roofline"))
