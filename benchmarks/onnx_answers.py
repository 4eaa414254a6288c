"""Whether models exported to ONNX answer as they do in PyTorch: 1,000 fresh instances of each bundled model."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.report import ROOT, Result, Save, positive, progress, rounded, run, table, target, targets_table
from lightning_ham import from_pretrained
from lightning_ham.controllers import Rollout
from lightning_ham.exporting import export_model
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.places import bundled_names
from lightning_ham.tasks import Episodes, Lengths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTION = "Differences between bundled models in PyTorch and the same models as ONNX graphs in ONNX Runtime."
BOUND = 1e-4
"""Largest accepted difference of a logit, relative to logits above 1."""
LENGTHS = {Lengths(1, 32): 0.8, Lengths(33, 128): 0.2}
"""Shares of the instances."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", nargs="+", default=bundled_names(), metavar="NAME", help="default: all bundled ones"
    )
    parser.add_argument("--instances", type=positive, metavar="N", help="of each model (default: 1000; quick: 50)")


def measure(options: argparse.Namespace, save: Save) -> Result:
    """Export every model, and run its instances by both."""
    torch.set_num_threads(options.threads)
    instances = options.instances or (50 if options.quick else 1000)
    rows: list[Result] = []
    with tempfile.TemporaryDirectory() as parent:
        for name in options.models:
            progress(name)
            model, folder = from_pretrained(name), Path(parent, name)
            export_model(model, name, "onnx", folder)
            rows += [
                compare(model, name, folder, lengths, round(instances * part)) for lengths, part in LENGTHS.items()
            ]
            save(result(rows))
    return result(rows)


def compare(model: TrainedModel, name: str, folder: Path, lengths: Lengths, count: int) -> Result:
    """How many of the instances both answer alike, and how far apart their logits are, until they read other leaves.

    They may do so where SEARCH is undecided, such as at the end of Merge, when nothing is left to be read.
    """
    model.controller.memory.engine = "sparse"
    low = max(lengths.low, model.task.min_length)
    episodes = model.task.sample(count, (low, lengths.high), generator=torch.Generator().manual_seed(lengths.high))
    with torch.inference_mode():
        expected = model(episodes)
    timesteps, per_output = episodes.targets.shape[1], model.accesses_per_output
    runner = load_example().Episodes(folder, torch.get_num_threads())
    logits, leaves = map(
        torch.from_numpy, runner.outputs(episodes.inputs.numpy(), episodes.occupied.numpy(), timesteps)
    )
    own = torch.arange(timesteps) < torch.tensor([[model.task.timesteps_for(n)] for n in episodes.lengths.tolist()])
    other = (leaves != expected.leaves) & own.repeat_interleave(per_output, dim=1)
    alike = own & (other.cumsum(dim=1)[:, per_output - 1 :: per_output] == 0)
    difference = (logits - expected.outputs).abs() / expected.outputs.abs().clamp(min=1)
    return {
        "model": name,
        "lengths": str(lengths),
        "instances": count,
        "same_answer": same(answers(model, episodes, logits), answers(model, episodes, expected.outputs)),
        "same_leaves": int((~other).all(dim=1).sum()),
        "largest_difference": rounded(float(difference[alike].amax())) if alike.any() else 0.0,
        "parting": parting(leaves, expected, other),
    }


def parting(leaves: torch.Tensor, expected: Rollout, other: torch.Tensor) -> float | None:
    """The largest logit, without its sign, of a branch that was the first taken otherwise; None without any."""
    found = []
    for episode in other.any(dim=1).nonzero().flatten().tolist():
        access = int(other[episode].int().argmax())
        branches = torch.logit(expected.branch_probs[episode, access].double())
        parted = int(leaves[episode, access] ^ expected.leaves[episode, access])
        found.append(abs(float(branches[len(branches) - parted.bit_length()])))
    return rounded(max(found)) if found else None


def answers(model: TrainedModel, episodes: Episodes, logits: torch.Tensor) -> list[Any]:
    """The decoded answers, each from its own timesteps."""
    ends = [model.task.timesteps_for(length) for length in episodes.lengths.tolist()]
    bits = (logits > 0).unbind()
    return [model.task.decode(row[:end], cells) for row, end, cells in zip(bits, ends, episodes.inputs, strict=True)]


def same(found: list[Any], expected: list[Any]) -> int:
    """How many answers are equal."""
    return sum(one == other for one, other in zip(found, expected, strict=True))


def load_example() -> Any:
    """The example that runs episodes of exported models."""
    spec = importlib.util.spec_from_file_location("onnx_episodes", ROOT / "examples" / "onnx_episodes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(rows: list[Result]) -> Result:
    other = sum(row["instances"] - row["same_answer"] for row in rows)
    worst = max(row["largest_difference"] for row in rows)
    parted = max((row["parting"] for row in rows if row["parting"]), default=0.0)
    targets = [
        target("instances answered otherwise", other, 0, at_most=True),
        target("largest difference of a logit", worst, BOUND, at_most=True),
        target("largest logit of a branch taken otherwise", parted, BOUND, at_most=True),
    ]
    return {"rows": rows, "targets": targets}


def markdown(result: Result) -> str:
    header = ("model", "lengths", "instances", "same answer", "same leaves", "largest difference", "logit at parting")
    text = (
        "A difference of logits is relative for logits above 1, else absolute; over whole episodes, until other leaves "
        "are read. They may be where SEARCH is undecided, such as at the end of Merge, when nothing is left to be "
        "read; its logit where they part is in the last column."
    )
    rows = table(header, (tuple(row.values()) for row in result["rows"]))
    return "\n\n".join((text, rows, targets_table(result["targets"])))


def plot(result: Result, figure: Figure) -> None:
    axis = figure.subplots()
    rows = result["rows"]
    axis.barh([f"{row['model']}, {row['lengths']}" for row in rows], [row["largest_difference"] for row in rows])
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="largest difference of a logit")


if __name__ == "__main__":
    sys.exit(run("onnx_answers"))
