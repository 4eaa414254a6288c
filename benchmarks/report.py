"""What all benchmarks share: their command line, where it was measured, medians, and the three files of a result."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
PACKAGES = ("torch", "numpy", "numba", "pytorch-lightning", "lightning-ham", "onnxruntime", "dnc")

Result = dict[str, Any]
Save = Callable[[Result], None]


def positive(text: str) -> int:
    """The whole number of at least 1 that an argument is."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"Expected a whole number of at least 1, but got {text!r}")
    return int(text)


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and few runs; writes nothing by itself")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (default: benchmarks/results)")
    parser.add_argument("--threads", type=positive, default=os.cpu_count() or 1, metavar="N", help="default: all cores")
    return parser


def run(name: str, argv: Sequence[str] | None = None) -> int:
    """Run the benchmark in the module ``name``: measure, write the three files, print the table or the JSON object.

    The module has ``DESCRIPTION``, ``measure(options, save)``, ``markdown(result)`` and ``plot(result, figure)``. If it
    has options of its own, it has ``add_options(parser)``; if it measures a figure more than once, ``RUNS`` is how
    often. ``save`` writes what is known so far.
    """
    # By its name, not as `__main__`: `python benchmarks/training.py` and `python -m benchmarks.training` are one then.
    script = load_script(name)
    parser = make_parser(name, script.DESCRIPTION)
    if hasattr(script, "add_options"):
        script.add_options(parser)
    runs = getattr(script, "RUNS", None)
    if runs is not None:
        parser.add_argument("--runs", type=positive, metavar="N", help=f"of each figure (default: {runs}; quick: 2)")
    options = parser.parse_args(argv)
    if runs is not None:
        options.runs = options.runs or (2 if options.quick else runs)
    if options.output is None and not options.quick:
        options.output = RESULTS
    for variable in THREAD_VARIABLES:  # for the processes that are started; in this one the script sets torch's own
        os.environ[variable] = str(options.threads)
    head = describe(name, options)

    def save(measured: Result) -> None:
        if options.output is not None:
            write(name, head | measured, options.output)

    measured = script.measure(options, save)
    save(measured)
    result = head | measured
    print(json.dumps(result, indent=2) if options.json else markdown(name, result))
    return 0


def load_script(name: str) -> ModuleType:
    """The module of a benchmark."""
    return importlib.import_module(f"benchmarks.{name}")


def describe(name: str, options: argparse.Namespace) -> Result:
    """What stands at the head of every result, as it is before anything is measured."""
    import torch

    from lightning_ham.evaluation.record import describe_machine

    load, memory_mb = os.getloadavg()[0], available_memory_mb()
    return {
        "benchmark": name,
        "quick": options.quick,
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": describe_machine(torch.device("cpu"))
        | {"available_memory_mb": None if memory_mb is None else round(memory_mb), "load_before": round(load, 2)},
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "threads": options.threads,
        "runs": getattr(options, "runs", 1),
    }


def version(package: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def available_memory_mb() -> float | None:
    """Memory that can be had without swapping, None where the system does not tell (it is not Linux)."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) / 1024


def progress(message: str) -> None:
    """Tell on standard error what is being measured."""
    print(message, file=sys.stderr, flush=True)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of measurements, four digits each."""
    ordered = sorted(values)
    quartiles = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return {name: rounded(value) for name, value in zip(("lower", "median", "upper"), quartiles, strict=True)}


def rounded(value: float, digits: int = 4) -> float:
    """A number with so many digits that count."""
    return float(f"{value:.{digits}g}")


def time_calls(call: Callable[[], object], calls: int) -> float:
    """Seconds of one of several calls in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def calls_for(call: Callable[[], object], seconds: float) -> int:
    """How many calls in a row take at least so many seconds, found by trying."""
    calls = 1
    while (taken := time_calls(call, calls) * calls) < seconds:
        calls = max(calls + 1, min(10 * calls, round(1.2 * calls * seconds / max(taken, 1e-9))))
    return calls


def interleaved(calls: dict[str, Callable[[], object]], runs: int, seconds: float) -> dict[str, list[float]]:
    """Seconds a call of each of several, measured in turns so that a drift of the machine hits all alike.

    Args:
        calls: What to time, by name.
        runs: Turns.
        seconds: What one measurement takes at least; short calls are repeated.
    """
    for call in calls.values():
        call()  # the first call may load compiled loops; it says nothing of how long others take
    repeats = {name: calls_for(call, seconds) for name, call in calls.items()}
    measured: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            measured[name].append(time_calls(call, repeats[name]))
    return measured


def target(what: str, value: float | None, bound: float, *, at_most: bool = False) -> Result:
    """A figure beside the bound that it is to reach; ``value`` is None where it could not be measured."""
    met = None if value is None else value <= bound if at_most else value >= bound
    return {
        "what": what,
        "value": None if value is None else rounded(value),
        "target": f"at {'most' if at_most else 'least'} {bound:g}",
        "met": met,
    }


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers are shown with four digits that count, None as a dash."""
    lines = [header, ["---"] * len(header), *([shown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(cell: object) -> str:
    """A table's cell as text."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return str(cell)


def targets_table(targets: Sequence[Result]) -> str:
    """The table of :func:`target` figures."""
    return table(("what", "measured", "target", "met"), (tuple(row.values()) for row in targets))


def markdown(name: str, result: Result) -> str:
    """A result as a Markdown page; it depends on nothing but the JSON object."""
    machine, versions = result["machine"], result["versions"]
    where = "; ".join(
        [
            f"{machine['processor']}, {result['threads']} of {machine['cores']} cores, {machine['platform']}",
            ", ".join(f"{package} {number}" for package, number in versions.items() if number),
            f"load before {machine['load_before']:g}",
            f"{result['started']}.",
        ]
    )
    medians = f"Medians of {result['runs']} runs. " if result["runs"] > 1 else ""
    quick = "\n\n**Quick run: sizes and numbers of runs too small to mean anything.**" if result["quick"] else ""
    command = f"`python -m benchmarks.{name}`"
    return f"# {name}\n\nMade by {command}. {medians}{where}{quick}\n\n{load_script(name).markdown(result).strip()}\n"


def write(name: str, result: Result, folder: Path) -> None:
    """Write ``NAME.json``, ``NAME.md`` and ``NAME.svg``, each whole or not at all."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):  # the same file for the same
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")  # result
        load_script(name).plot(result, figure)
        figure.savefig(folder / f"{name}.svg.partial", format="svg", metadata={"Date": None})
    (folder / f"{name}.json.partial").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (folder / f"{name}.md.partial").write_text(markdown(name, result), encoding="utf-8")
    for suffix in ("svg", "md", "json"):
        (folder / f"{name}.{suffix}.partial").replace(folder / f"{name}.{suffix}")


def read(name: str, folder: Path | None) -> Result | None:
    """A result that was written before, None where there is none."""
    path = None if folder is None else folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else None
