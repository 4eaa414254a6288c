"""Evaluation by the paper's protocol: fresh episodes, deterministic; one wrong bit makes a sequence wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from lightning_ham.controllers import compile_seconds, get_num_threads
from lightning_ham.evaluation.errors import count_errors
from lightning_ham.evaluation.intervals import wilson_interval
from lightning_ham.evaluation.mistakes import MistakeCounter
from lightning_ham.evaluation.record import Evaluation, LengthResult, describe_machine, describe_versions
from lightning_ham.models import TaskModel
from lightning_ham.tasks import Episodes, Lengths, Task, capacity_for
from lightning_ham.tasks.seeds import stream_seed

CELLS_PER_DRAW = 1 << 20
"""Most cells drawn at a time, which limits memory; also the greatest length."""


def evaluate(
    model: TaskModel,
    lengths: Sequence[tuple[int, int] | str],
    episodes: int | Sequence[int],
    seed: int,
    batch_size: int = 512,
    on_progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Measure how often ``model`` is wrong on fresh episodes.

    The paper's protocol: every branch and every bit is decided at probability 1/2, and a sequence is wrong if any
    of its scored bits is wrong, end flag included. The memory of a range has the fewest leaves that hold its greatest
    length. All ranges are measured on the task's own distribution first, then on each of its variants.

    The episodes depend only on ``seed``, the range of lengths and their number; their random stream is separate from
    those of training and validation.

    Args:
        model: The model to evaluate; its training mode is restored afterwards.
        lengths: Ranges of lengths, inclusive, as pairs or as ``"1-32"``; drawn uniformly within each.
        episodes: Number of episodes per range: one for all, or one for each.
        seed: Seed of the episodes.
        batch_size: Most episodes that the model answers at a time; affects speed and memory, not the episodes.
        on_progress: Called after every batch with its number of episodes.

    Raises:
        ValueError: Before any evaluation, if the task has no instance in a range, or a number is not positive.
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
    """Return the number of episodes of each range, given one number for all or one for each.

    Raises:
        ValueError: If there are neither one nor as many numbers as ranges, or one is not positive.
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
    wrong, total = torch.zeros(2, 3, dtype=torch.long, device=model.device)
    mistakes = MistakeCounter(model.task)
    compiled = compile_seconds() if model.is_compiled else 0.0
    start = time.perf_counter()
    for batch in _draw(model, lengths, variant, episodes, seed, batch_size):
        on_device = Episodes(*(tensor.to(model.device) for tensor in batch))
        outputs = model(on_device, "argmax").outputs
        counts = count_errors(outputs, on_device)
        wrong += counts.wrong
        total += counts.total
        mistakes.update(outputs, on_device)
        if on_progress:
            on_progress(len(batch.lengths))
    wrong_sequences, wrong_symbols, wrong_bits = wrong.tolist()
    sequences, symbols, bits = total.tolist()
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


def draw_episodes(
    task: Task[Any, Any], lengths: tuple[int, int], variant: str | None, episodes: int, seed: int
) -> Iterator[Episodes]:
    """Yield the episodes of a range in draws of limited size: those that :func:`evaluate` measures on.

    Args:
        task: The task.
        lengths: Shortest and longest length.
        variant: One of the task's variants; None for its main distribution.
        episodes: How many in all.
        seed: Their seed.
    """
    capacity = capacity_for(lengths[1])
    draw_size = CELLS_PER_DRAW // capacity
    for draw, first in enumerate(range(0, episodes, draw_size)):
        generator = torch.Generator().manual_seed(stream_seed(seed, "evaluate", *lengths, draw))
        count = min(draw_size, episodes - first)
        yield task.sample(count, lengths, capacity=capacity, variant=variant, generator=generator)


def _draw(
    model: TaskModel, lengths: tuple[int, int], variant: str | None, episodes: int, seed: int, batch_size: int
) -> Iterator[Episodes]:
    """Yield the episodes of a range in batches of similar length, which waste few timesteps after an end."""
    for drawn in draw_episodes(model.task, lengths, variant, episodes, seed):
        for rows in drawn.lengths.argsort().split(batch_size):
            batch = Episodes(*(tensor[rows] for tensor in drawn))
            timesteps = int(batch.scored.any(dim=-1).any(dim=0).nonzero().max()) + 1
            yield batch._replace(targets=batch.targets[:, :timesteps], scored=batch.scored[:, :timesteps])
