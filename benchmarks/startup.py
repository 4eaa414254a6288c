"""What a user waits for before anything happens: imports, the help of `fit`, loading a model, its first answer."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.report import ROOT, Result, Save, progress, rounded, run, summary, table, target, targets_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTION = "Seconds of imports, of `fit --help`, of loading a model and of its first answer, in new processes."
RUNS = 9
EMPTY = "start Python"
# Each is a process of its own; one that prints a number has measured a part of itself, which is what counts.
COMMANDS: dict[str, list[str]] = {
    EMPTY: ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import lightning_ham": ["-c", "import lightning_ham"],
    "import torch, lightning_ham": ["-c", "import torch, lightning_ham"],
    "from lightning_ham import HierarchicalAttentiveMemory": [
        "-c",
        "from lightning_ham import HierarchicalAttentiveMemory",
    ],
    "from lightning_ham import HAMModule": ["-c", "from lightning_ham import HAMModule"],
    "from lightning_ham import from_pretrained": ["-c", "from lightning_ham import from_pretrained"],
    "python -m lightning_ham.fit --help": ["-m", "lightning_ham.fit", "--help"],
    'from_pretrained("ham-sort"), imports done': [
        "-c",
        "import time; from lightning_ham import from_pretrained; start = time.perf_counter(); "
        'from_pretrained("ham-sort"); print(time.perf_counter() - start)',
    ],
    "first solve, model loaded": [
        "-c",
        'import time; from lightning_ham import from_pretrained; model = from_pretrained("ham-sort"); '
        "start = time.perf_counter(); model.solve([[(9, 4), (2, 7), (9, 1)]]); print(time.perf_counter() - start)",
    ],
}


def measure(options: argparse.Namespace, save: Save) -> Result:
    """Run all commands in turns, the shorter half of them if quick."""
    commands = list(COMMANDS)[: 5 if options.quick else None]
    seconds: dict[str, list[float]] = {what: [] for what in commands}
    for what in [] if options.quick else commands:  # fills the file cache, so that the first turn is like the others
        time_command(what)
    for turn in range(options.runs):
        progress(f"run {turn + 1} of {options.runs}")
        for what, measured in seconds.items():
            measured.append(time_command(what))
    rows = [{"what": what, **summary(measured)} for what, measured in seconds.items()]
    return {"rows": rows, "ratios": ratios(rows)}


def time_command(what: str) -> float:
    """Seconds of a command, or of the part of it that it has measured."""
    start = time.perf_counter()
    command = [sys.executable, *COMMANDS[what]]
    finished = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    return float(finished.stdout) if "print(" in command[-1] else seconds


def ratios(rows: list[Result]) -> list[Result]:
    """The figure that has a target; the start of Python is in both."""
    median = {row["what"]: row["median"] for row in rows}

    def over_torch(what: str) -> Result:
        return target(f"{what} over import torch", rounded(median[what] / median["import torch"]), 1.3, at_most=True)

    # The package imports nothing until a name of it is used; the memory is what needs torch alone.
    return [
        over_torch("import lightning_ham"),
        over_torch("import torch, lightning_ham"),
        over_torch("from lightning_ham import HierarchicalAttentiveMemory"),
    ]


def markdown(result: Result) -> str:
    rows = [(f"`{row['what']}`", row["median"], f"{row['lower']:.4g} to {row['upper']:.4g}") for row in result["rows"]]
    return table(("what", "seconds", "quartiles"), rows) + "\n\n" + targets_table(result["ratios"])


def plot(result: Result, figure: Figure) -> None:
    axis = figure.subplots()
    axis.barh([row["what"] for row in result["rows"]], [row["median"] for row in result["rows"]])
    axis.invert_yaxis()
    axis.set(xlabel="seconds")


if __name__ == "__main__":
    sys.exit(run("startup"))
