"""One access to the memory against softmax attention over as many cells, 2^5 to 2^20 of them, without gradients."""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.peers import CELL_SIZE, CONTROLLER_SIZE, HAM_OPTIONS
from benchmarks.report import (
    Result,
    Save,
    available_memory_mb,
    interleaved,
    positive,
    progress,
    rounded,
    run,
    summary,
    table,
    target,
    targets_table,
)
from lightning_ham import HierarchicalAttentiveMemory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTION = "Microseconds of one access (attend, read, write, re-join), and of softmax attention over as many cells."
RUNS = 15
INPUT_SIZE = 10
LARGER_BATCH = 256
QUERIES = 64
"""Different ones, taken in turns: an access that always takes the same path would find it in the cache."""
BUILD_FACTOR = 6
"""Memory that it takes to build a tree, in sizes of the finished one."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=positive, metavar="N", help="accesses at once (default: 1, and then 256)")
    parser.add_argument("--exponents", nargs=2, type=positive, metavar=("LOW", "HIGH"), help="of n (default: 5 20)")


def measure(options: argparse.Namespace, save: Save) -> Result:
    """Time both at every size, in one batch of 1, and then also in larger ones."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    low, high = options.exponents or ((5, 10) if options.quick else (5, 20))
    sizes = [1 << exponent for exponent in range(low, high + 1)]
    seconds = 0.01 if options.quick else 0.05
    result = measure_batch(options.batch or 1, sizes, options.runs, seconds)
    result["ratios"] = ratios(result)
    save(result | {"larger": []})
    larger = [] if options.quick or options.batch else [LARGER_BATCH]
    return result | {"larger": [measure_batch(batch, sizes, options.runs, seconds) for batch in larger]}


def measure_batch(batch: int, sizes: list[int], runs: int, seconds: float) -> Result:
    """The columns of one batch, where its trees fit into memory."""
    memory = HierarchicalAttentiveMemory(
        INPUT_SIZE, CONTROLLER_SIZE, HAM_OPTIONS["leaf_size"], HAM_OPTIONS["hidden_size"], engine="fused"
    ).eval()
    columns: dict[str, list[float]] = {"n": []}
    skipped = []
    for n in sizes:
        if not fits(n, batch):
            skipped.append({"n": n, "why": "a tree of this size and batch does not fit into memory"})
            continue
        progress(f"batch {batch}, n = {n:,} ...")
        columns["n"].append(n)
        for name, measured in time_at(memory, n, batch, runs, seconds).items():
            figures = summary([1e6 * second for second in measured])
            columns.setdefault(f"{name}_us", []).append(figures["median"])
            columns.setdefault(f"{name}_us_quartiles", []).append([figures["lower"], figures["upper"]])
    return {"batch": batch, **columns, "skipped": skipped, "fits": fits_of(columns)}


def fits(n: int, batch: int) -> bool:
    """Whether a tree of ``n`` leaves for every episode can be built in the memory that is free."""
    available = available_memory_mb()
    tree_mb = batch * 2 * n * CELL_SIZE * 4 / (1 << 20)
    return available is None or BUILD_FACTOR * tree_mb < available


@torch.inference_mode()
def time_at(
    memory: HierarchicalAttentiveMemory, n: int, batch: int, runs: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of an access, and of attention in two ways, measured in turns."""
    queries = torch.randn(QUERIES, batch, CONTROLLER_SIZE)
    calls = {"access": accesses(memory, torch.rand(batch, n, INPUT_SIZE), queries)}
    cells = torch.randn(batch, n, CELL_SIZE)
    calls["attention"] = attentions(softmax_attention, cells, queries)
    calls["fused_attention"] = attentions(fused_attention, cells, queries)
    return interleaved(calls, runs, seconds)


def accesses(memory: HierarchicalAttentiveMemory, inputs: Tensor, queries: Tensor) -> Callable[[], None]:
    """A function that makes one access, each with the next query, to a tree that is written in place."""
    tree = memory.init(inputs)
    turns = itertools.cycle(queries.unbind())

    def access() -> None:
        nonlocal tree
        query = next(turns)
        tree = memory.write(memory.attend(tree, query, "argmax"), query, in_place=True)

    return access


def attentions(attention: Callable[[Tensor, Tensor], Tensor], cells: Tensor, queries: Tensor) -> Callable[[], Tensor]:
    """A function that attends to all cells, each time with the next query."""
    turns = itertools.cycle(queries.unbind())
    return lambda: attention(cells, next(turns))


def softmax_attention(cells: Tensor, query: Tensor) -> Tensor:
    """Query times keys, softmax, weighted sum; the cells ``[batch, n, size]`` are keys and values."""
    weights = torch.softmax((cells @ query.unsqueeze(-1)).squeeze(-1) / math.sqrt(query.shape[-1]), dim=1)
    return (weights.unsqueeze(1) @ cells).squeeze(1)


def fused_attention(cells: Tensor, query: Tensor) -> Tensor:
    """The same in PyTorch's own fused form, whichever kernel it chooses."""
    cells, query = cells.unsqueeze(1), query.view(-1, 1, 1, query.shape[-1])  # one head
    return torch.nn.functional.scaled_dot_product_attention(query, cells, cells)[:, 0, 0]


def fits_of(columns: dict[str, list[float]]) -> Result:
    """Least-squares lines: an access over log2 n, attention over n."""
    if len(columns["n"]) < 3:
        return {}
    depths = [math.log2(n) for n in columns["n"]]
    return {
        "access_us over log2 n": line(depths, columns["access_us"]),
        "access_us over n": line(columns["n"], columns["access_us"]),
        "attention_us over n": line(columns["n"], columns["attention_us"]),
    }


def line(x: list[float], y: list[float]) -> Result:
    """Slope, intercept and coefficient of determination of the line through points."""
    slope, intercept = statistics.linear_regression(x, y)
    return {
        "slope": rounded(slope),
        "intercept": rounded(intercept),
        "r_squared": rounded(statistics.correlation(x, y) ** 2),
    }


def ratios(columns: dict[str, list[float]]) -> list[Result]:
    """The figures that have a target."""
    at = {n: index for index, n in enumerate(columns["n"])}
    largest, middle = at.get(1 << 20), at.get(1 << 10)
    access, attention, fused = columns["access_us"], columns["attention_us"], columns["fused_attention_us"]

    def ratio(over: list[float], numerator: int | None, under: list[float], denominator: int | None) -> float | None:
        return None if numerator is None or denominator is None else over[numerator] / under[denominator]

    return [
        target("softmax attention over one access, n = 2^20", ratio(attention, largest, access, largest), 50),
        target("fused softmax attention over one access, n = 2^20", ratio(fused, largest, access, largest), 50),
        target("access at 2^20 over access at 2^10", ratio(access, largest, access, middle), 2.5, at_most=True),
    ]


def markdown(result: Result) -> str:
    parts = [
        f"Cells of {CELL_SIZE} numbers, no gradients.",
        columns_table(result),
        targets_table(result["ratios"]),
        *(columns_table(larger) for larger in result["larger"]),
    ]
    return "\n\n".join(parts)


def columns_table(columns: Result) -> str:
    """The figures of one batch, and the lines through them."""
    rows = zip(
        columns["n"],
        columns["access_us"],
        (f"{low:.4g} to {high:.4g}" for low, high in columns["access_us_quartiles"]),
        columns["attention_us"],
        columns["fused_attention_us"],
        (a / b for a, b in zip(columns["attention_us"], columns["access_us"], strict=True)),
        strict=True,
    )
    header = ("cells n", "access (us)", "quartiles", "attention (us)", "fused attention (us)", "attention / access")
    parts = [f"## Batch {columns['batch']}", table(header, rows)]
    if columns["fits"]:
        lines = [(what, fit["slope"], fit["intercept"], fit["r_squared"]) for what, fit in columns["fits"].items()]
        parts.append(table(("least squares", "slope", "intercept", "R^2"), lines))
    if columns["skipped"]:
        parts.append("Not measured:\n\n" + table(("n", "why"), (tuple(row.values()) for row in columns["skipped"])))
    return "\n\n".join(parts)


def plot(result: Result, figure: Figure) -> None:
    axis = figure.subplots()
    for column, label in (
        ("access_us", "one access"),
        ("attention_us", "softmax attention"),
        ("fused_attention_us", "softmax attention, fused"),
    ):
        axis.loglog(result["n"], result[column], "o-", label=label, markersize=3)
    axis.set_xscale("log", base=2)
    axis.set(xlabel="cells n", ylabel="microseconds", title=f"batch {result['batch']}")
    axis.legend()


if __name__ == "__main__":
    sys.exit(run("access"))
