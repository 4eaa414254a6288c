"""Evaluation by the paper's protocol: fresh episodes, deterministic, a sequence wrong if one bit of it is."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch

from lightning_ham import __version__
from lightning_ham.controllers import compile_seconds, get_num_threads
from lightning_ham.models import TaskModel
from lightning_ham.tasks import Episodes, Lengths, Task, capacity_for, find_task
from lightning_ham.tasks.lengths import row_name
from lightning_ham.training.datamodule import stream_seed
from lightning_ham.training.metrics import SequenceErrors
from lightning_ham.training.mistakes import MistakeCounter, Mistakes

CELLS_PER_DRAW = 1 << 20
"""Most cells drawn at a time, so that many or long episodes need little room; also the longest length."""


class LengthResult(TypedDict):
    """What was measured on the lengths of one range; errors and interval are shares in [0, 1]."""

    lengths: list[int]
    """Shortest and longest length, inclusive; those below the task's shortest instance stand for nothing."""
    variant: NotRequired[str]
    """Of the task, whose own distribution of instances is meant where this is missing."""
    capacity: int
    """Leaves of the memory: the smallest power of two that holds the longest length."""
    episodes: int
    wrong_sequences: int
    sequence_error: float
    interval: list[float]
    """Lower and upper end of the 95 % interval (Wilson's) of ``sequence_error``."""
    symbol_error: float
    wrong_bits: int
    bit_error: float
    episodes_per_second: float
    """Episodes drawn, answered and scored; the time that loops took to compile, at their first use, is left out."""
    mistakes: Mistakes
    """What the wrong sequences are like."""


class Machine(TypedDict):
    """Where it was measured."""

    processor: str
    cores: int
    platform: str
    device: str
    """What the model ran on: ``cpu``, or the accelerator's name."""


class Evaluation(TypedDict):
    """How often a model is wrong, as plain data that goes to JSON and back unchanged."""

    task: str
    controller: str
    num_parameters: int
    seed: int
    threads: int
    machine: Machine
    versions: dict[str, str]
    results: list[LengthResult]
    weights_sha256: NotRequired[str]
    """Of the file of the weights that were measured, where they are saved."""


def wilson_interval(wrong: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of which ``wrong`` in ``total`` were seen.

    Unlike the normal approximation it holds near 0: no error in 2,500 episodes still leaves room for some.

    >>> [round(end, 5) for end in wilson_interval(0, 2500)]
    [0.0, 0.00153]
    """
    if not 0 <= wrong <= total or total < 1:
        raise ValueError(f"Expected 0 <= wrong <= total and a total of at least 1, but got {wrong} of {total}.")
    z2 = 1.959963984540054**2  # the normal distribution's 97.5 % quantile
    center = (wrong + z2 / 2) / (total + z2)
    half_width = math.sqrt(z2 * (wrong * (total - wrong) / total + z2 / 4)) / (total + z2)
    return center - half_width, 1.0 if wrong == total else center + half_width  # which rounding could miss


def evaluate(
    model: TaskModel,
    lengths: Sequence[tuple[int, int] | str],
    episodes: int | Sequence[int],
    seed: int,
    batch_size: int = 512,
    on_progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Measure how often ``model`` is wrong on fresh episodes.

    The paper's protocol: every branch and every bit is decided at probability 1/2, and a sequence is wrong if
    a single scored bit of it is, its end flag included. The memory of a range has the fewest leaves that hold
    its longest length. Every range is measured on the task's own distribution first, then on each of its variants.

    The episodes depend on ``seed``, the range of lengths and their number alone, and come from no stream of
    training or validation.

    Args:
        model: What to evaluate; it is left in the mode that it was in.
        lengths: Ranges of lengths, inclusive, as pairs or as ``"1-32"``; drawn uniformly within each.
        episodes: Episodes of every range, or of each.
        seed: Seed of the episodes.
        batch_size: Most episodes that the model answers at a time; it decides speed and memory, not what is
            drawn.
        on_progress: Called after every batch with its number of episodes.

    Raises:
        ValueError: If a range holds no length of the task, or a number is not positive; nothing is evaluated
            then.
    """
    ranges = check_lengths(model.task, lengths)
    counts = episodes_per_range(lengths, episodes)
    if batch_size < 1:
        raise ValueError(f"Expected argument `batch_size` to be at least 1, but got {batch_size}.")
    was_training = model.training
    model.eval()
    try:
        results = [
            _evaluate_range(model, span, variant, count, seed, batch_size, on_progress)
            for variant in (None, *model.task.variants)
            for span, count in zip(ranges, counts, strict=True)
        ]
    finally:
        model.train(was_training)
    return {
        "task": model.task_name,
        "controller": model.controller_name,
        "num_parameters": model.num_parameters,
        "seed": seed,
        "threads": get_num_threads(),
        "machine": describe_machine(model.device),
        "versions": describe_versions(),
        "results": results,
    }


def episodes_per_range(lengths: Sequence[tuple[int, int] | str], episodes: int | Sequence[int]) -> list[int]:
    """Return how many episodes each range has, if one number was given or as many as there are ranges.

    Raises:
        ValueError: If there is another number of numbers, or one is not positive.
    """
    counts = [episodes] * len(lengths) if isinstance(episodes, int) else list(episodes)
    if len(counts) != len(lengths):
        raise ValueError(
            f"Expected argument `episodes` to be one number or one for each range of lengths ({len(lengths)}), "
            f"but got {len(counts)}."
        )
    for count in counts:
        if count < 1:
            raise ValueError(f"Expected argument `episodes` to be at least 1, but got {count}.")
    return counts


def check_lengths(task: Task[Any, Any], lengths: Sequence[tuple[int, int] | str]) -> list[Lengths]:
    """Return the ranges; raise a ValueError unless ``task`` can be evaluated on each."""
    if isinstance(lengths, str):
        raise ValueError(f"Expected argument `lengths` to be a list of ranges, but got {lengths!r} alone.")
    if not lengths:
        raise ValueError("Expected argument `lengths` to hold at least one range, such as 1-32, but got none.")
    ranges = [Lengths.of(span) for span in lengths]
    for span in ranges:
        if span.high > CELLS_PER_DRAW:
            raise ValueError(f"Expected lengths of at most {CELLS_PER_DRAW:,}, but got {span}.")
        task.sample(1, span, generator=torch.Generator())  # the task itself says what it cannot draw
    return ranges


@torch.inference_mode()
def _evaluate_range(
    model: TaskModel,
    lengths: tuple[int, int],
    variant: str | None,
    episodes: int,
    seed: int,
    batch_size: int,
    on_progress: Callable[[int], object] | None,
) -> LengthResult:
    errors, mistakes = SequenceErrors().to(model.device), MistakeCounter(model.task)
    compiled = compile_seconds() if model.is_compiled else 0.0
    start = time.perf_counter()
    for batch in _draw(model, lengths, variant, episodes, seed, batch_size):
        on_device = Episodes(*(tensor.to(model.device) for tensor in batch))
        outputs = model(on_device, "argmax").outputs
        errors.update(outputs, on_device)
        mistakes.update(outputs, on_device)
        if on_progress:
            on_progress(len(batch.lengths))
    # The sums themselves: `compute` would wait for other processes, and only one may be evaluating.
    wrong_sequences, wrong_symbols, wrong_bits = errors.wrong.tolist()
    sequences, symbols, bits = errors.total.tolist()
    seconds = time.perf_counter() - start
    if model.is_compiled:
        seconds -= compile_seconds() - compiled
    result: LengthResult = {
        "lengths": list(lengths),
        "capacity": capacity_for(lengths[1]),
        "episodes": sequences,
        "wrong_sequences": wrong_sequences,
        "sequence_error": wrong_sequences / sequences,
        "interval": list(wilson_interval(wrong_sequences, sequences)),
        "symbol_error": wrong_symbols / symbols,
        "wrong_bits": wrong_bits,
        "bit_error": wrong_bits / bits,
        "episodes_per_second": sequences / seconds,
        "mistakes": mistakes.compute(),
    }
    if variant:
        result["variant"] = variant
    return result


def _draw(
    model: TaskModel, lengths: tuple[int, int], variant: str | None, episodes: int, seed: int, batch_size: int
) -> Iterator[Episodes]:
    """Yield the episodes of a range, those of similar lengths together: few timesteps pass after an end."""
    capacity = capacity_for(lengths[1])
    draw_size = CELLS_PER_DRAW // capacity
    for draw, first in enumerate(range(0, episodes, draw_size)):
        generator = torch.Generator().manual_seed(stream_seed(seed, "evaluate", *lengths, draw))
        count = min(draw_size, episodes - first)
        drawn = model.task.sample(count, lengths, capacity=capacity, variant=variant, generator=generator)
        for rows in drawn.lengths.argsort().split(batch_size):
            batch = Episodes(*(tensor[rows] for tensor in drawn))
            timesteps = int(batch.scored.any(dim=-1).any(dim=0).nonzero().max()) + 1
            yield batch._replace(targets=batch.targets[:, :timesteps], scored=batch.scored[:, :timesteps])


def describe_versions() -> dict[str, str]:
    """Return the versions that an outcome may depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "lightning_ham": __version__}


def describe_machine(device: torch.device) -> Machine:
    """Describe this machine and the ``device`` of it that is used."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _processor() -> str:
    """Return the processor's model, which Linux tells in a file only."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


_COLUMNS = (
    "lengths",
    "leaves",
    "episodes",
    "wrong",
    "sequence error",
    "95 % interval",
    "symbol error",
    "bit error",
    "episodes/s",
)


def table(evaluation: Evaluation) -> str:
    """Render an evaluation as lines of text: what was evaluated, then a row for every range of lengths.

    The first line also says what the lengths are in the units that people count in, where those are not cells.
    """
    title = (
        f"{evaluation['task']} with {evaluation['controller']}, {evaluation['num_parameters']:,} parameters, "
        f"evaluation seed {evaluation['seed']}"
    )
    task = find_task(evaluation["task"])
    if task:
        sizes = task.sizes_in_words(result["lengths"] for result in evaluation["results"])
        title += f". {sizes}" if sizes else ""
    rows = [list(_COLUMNS)]
    for result in evaluation["results"]:
        low, high = result["interval"]
        rows.append(
            [
                row_name(result["lengths"], result.get("variant")),
                f"{result['capacity']:,}",
                f"{result['episodes']:,}",
                f"{result['wrong_sequences']:,}",
                _percent(result["sequence_error"]),
                f"{_percent(low)} to {_percent(high)}",
                _percent(result["symbol_error"]),
                _percent(result["bit_error"]),
                f"{result['episodes_per_second']:,.0f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([title, *lines])


def _percent(share: float) -> str:
    """Return a share as a percentage with three digits that count, so that no error is rounded to none."""
    return f"{100 * share:.3g} %"
