"""Episodes for the Trainer: drawn on the fly for training, fixed for validation and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from lightning_ham.arguments import LARGEST_SIZE, expect_integer, expect_number
from lightning_ham.tasks import Episodes, Lengths, Task, capacity_for, get_task
from lightning_ham.tasks.episode import shifted
from lightning_ham.tasks.seeds import stream_seed
from lightning_ham.training.namespace import LightningDataModule, warn_of_other_lightning

Split = Literal["train", "validation", "test"]

MOST_WORKERS = 1024
"""Most processes that draw episodes: more than anyone needs, but few enough for a system to start."""


class BatchKey(NamedTuple):
    """Everything that determines a batch: the same key always gives the same episodes."""

    seed: int
    split: Split
    epoch: int
    rank: int
    number: int
    """Number of the batch in its epoch; workers divide the numbers, so each has its own stream."""
    batch_size: int
    lengths: tuple[int, int]
    capacity: int
    hard_fraction: float
    shifted: bool = False
    """Whether instances begin at any leaf with enough room, not at the first."""
    part: tuple[int, int] = (0, 1)
    """Index of this part of the episodes, and the number of parts."""
    variant: str | None = None
    """Variant of the task."""


class EpisodeDataset(Dataset[Episodes]):
    """Draws the batch of a key."""

    def __init__(self, task: Task[Any, Any]) -> None:
        self.task = task

    def __getitem__(self, key: BatchKey) -> Episodes:
        """Draw the batch for ``key``."""
        generator = torch.Generator().manual_seed(stream_seed(key.seed, key.split, key.epoch, key.rank, key.number))
        episodes = self.task.sample(
            key.batch_size,
            key.lengths,
            capacity=key.capacity,
            hard_fraction=key.hard_fraction,
            variant=key.variant,
            generator=generator,
        )
        if key.shifted:
            episodes = shifted(episodes, generator)
        first, parts = key.part
        return Episodes(*(tensor[first::parts].contiguous() for tensor in episodes))


class _KeySampler(DistributedSampler[Episodes]):
    """Yields keys of batches for one process. A DistributedSampler, so that Lightning keeps it on many devices."""

    def __init__(self, datamodule: TaskDataModule) -> None:
        # Skips the base class's constructor, which counts the items of a dataset: ours has no end.
        self.rank, self.num_replicas = datamodule.rank()
        self.epoch = 0
        self.datamodule = datamodule


class TrainingSampler(_KeySampler):
    """Yields the keys of the batches of one training epoch.

    Most batches are drawn at the curriculum's current capacity, some at a smaller one. The lengths within a batch are
    similar, so that few timesteps are wasted on episodes that have ended.
    """

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.datamodule.batches_per_epoch

    def __iter__(self) -> Iterator[BatchKey]:  # type: ignore[override]
        """Yield the keys of this rank's batches in the current epoch."""
        data = self.datamodule
        for index in range(len(self)):
            # The same lengths on all ranks: else ranks would wait for others with longer episodes.
            draw = torch.Generator().manual_seed(stream_seed(data.seed, "lengths", self.epoch, index))
            lengths, capacity = data.draw_lengths(draw)
            yield BatchKey(
                data.seed,
                "train",
                self.epoch,
                self.rank,
                index,
                data.batch_size,
                lengths,
                capacity,
                data.hard_fraction,
                data.shifted_fraction > 0 and bool(torch.rand((), generator=draw) < data.shifted_fraction),
                variant=data.variant,
            )


class FixedSampler(_KeySampler):
    """Yields the keys of the batches of a fixed set of episodes; each rank gets a part of every batch.

    So all ranks have the same number of batches, as they must when a model runs on all of them together.

    Args:
        datamodule: Gives task, sizes and seed.
        split: ``validation`` or ``test``.
        lengths: Range of the lengths, inclusive; None for all lengths at the curriculum's current capacity.
    """

    def __init__(self, datamodule: TaskDataModule, split: Split, lengths: tuple[int, int] | None) -> None:
        super().__init__(datamodule)
        self.split = split
        self.lengths = lengths
        datamodule.check_processes(self.num_replicas)

    def __len__(self) -> int:
        """Return the maximum number of batches."""
        return self.datamodule.validation_batches(self.num_replicas)

    def __iter__(self) -> Iterator[BatchKey]:  # type: ignore[override]
        """Yield this rank's keys, the same at every call."""
        data = self.datamodule
        if self.split == "validation" and self.lengths is not None and data.capacity < data.final_capacity:
            return
        lengths = self.lengths or (data.task.min_length, data.capacity)
        capacity = capacity_for(lengths[1])
        seed = stream_seed(data.seed, *lengths)
        ends = (index * data.validation_episodes // len(self) for index in range(len(self) + 1))
        for index, (first, end) in enumerate(pairwise(ends)):
            part = (self.rank, self.num_replicas)
            yield BatchKey(
                seed, self.split, 0, 0, index, end - first, lengths, capacity, 0.0, part=part, variant=data.variant
            )


class TaskDataModule(LightningDataModule):
    """Episodes of one task, with the current length of a curriculum.

    A training batch depends on (seed, split, epoch, rank, number) and is drawn on demand, so a resumed run continues
    the same stream with any number of workers. The seed fixes validation and test sets.

    Args:
        task: Name of the task.
        batch_size: Episodes per batch and device.
        batches_per_epoch: Training batches (updates) between two validations.
        capacity: Leaves of the tree at the end of the curriculum, a power of two.
        start_capacity: Leaves at its start; equal to ``capacity`` for no curriculum.
        smaller_fraction: Share of the batches drawn at a capacity below the current one.
        deeper_fraction: Share of the batches in a tree 2 or 4 times as large as their episodes need, with blank leaves
            in the rest, so that a model does not rely on the depth of a tree.
        shifted_fraction: Share of the batches whose instances begin at any leaf instead of the first, so that a model
            does not rely on their place in a tree.
        hard_fraction: Share of the episodes drawn as the task's hard cases.
        variant: One of the task's variants, for training, validation and test; by default its own distribution.
        validation_episodes: Episodes in every validation set.
        validation_lengths: Ranges of lengths, as pairs or as ``"1-32"``, each validated in the smallest tree for its
            greatest length.
        num_workers: Processes that draw episodes; 0 draws them in the training process.
        seed: Seed of every stream.
    """

    def __init__(
        self,
        task: str,
        batch_size: int = 256,
        batches_per_epoch: int = 100,
        capacity: int = 32,
        start_capacity: int = 2,
        smaller_fraction: float = 0.2,
        deeper_fraction: float = 0.0,
        shifted_fraction: float = 0.0,
        hard_fraction: float = 0.0,
        variant: str | None = None,
        validation_episodes: int = 500,
        validation_lengths: Sequence[Lengths | tuple[int, int] | str] = (Lengths(1, 32), Lengths(33, 128)),
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        warn_of_other_lightning()
        self.task = get_task(task)
        self.task.check_variant(variant)
        expect_integer("batch_size", batch_size, at_least=1, at_most=LARGEST_SIZE)
        expect_integer("batches_per_epoch", batches_per_epoch, at_least=1)
        expect_integer("validation_episodes", validation_episodes, at_least=1)
        expect_integer("num_workers", num_workers, at_least=0, at_most=MOST_WORKERS)
        for name, value in {"capacity": capacity, "start_capacity": start_capacity}.items():
            expect_integer(name, value, at_most=LARGEST_SIZE)
            if value < 1 or value & (value - 1):
                raise ValueError(f"Expected argument `{name}` to be a power of two, but got {value}.")
        if capacity < capacity_for(self.task.min_length):
            raise ValueError(
                f"Expected argument `capacity` to hold the shortest instance of task '{task}', "
                f"of {self.task.min_length} cells, but got {capacity}."
            )
        if start_capacity > capacity:
            raise ValueError(
                f"Expected argument `start_capacity` to be at most `capacity` ({capacity}), but got {start_capacity}."
            )
        for name, share in {
            "smaller_fraction": smaller_fraction,
            "deeper_fraction": deeper_fraction,
            "shifted_fraction": shifted_fraction,
            "hard_fraction": hard_fraction,
        }.items():
            expect_number(name, share, at_least=0, at_most=1)
        if hard_fraction > 0 and not self.task.has_hard_cases:
            raise ValueError(
                f"Expected argument `hard_fraction` to be 0, as task '{task}' has no hard cases, "
                f"but got {hard_fraction}."
            )
        if shifted_fraction > 0 and not self.task.can_be_shifted:
            raise ValueError(
                f"Expected argument `shifted_fraction` to be 0, as instances of task '{task}' begin at the first cell, "
                f"but got {shifted_fraction}."
            )
        ranges = self._checked_ranges(validation_lengths)
        validation_lengths = [(low, high) for low, high in ranges]  # plain data for checkpoints
        # Not logged: Lightning refuses to log a module and data if an argument of one name, such as `seed`, differs.
        self.save_hyperparameters(logger=False)
        self.dataset = EpisodeDataset(self.task)
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.final_capacity = capacity
        self.min_capacity = capacity_for(self.task.min_length)
        self.first_capacity = max(start_capacity, self.min_capacity)
        self.capacity = self.first_capacity
        """Leaves of the tree that training is at; the curriculum raises it."""
        self.smaller_fraction = smaller_fraction
        self.deeper_fraction = deeper_fraction
        self.shifted_fraction = shifted_fraction
        self.hard_fraction = hard_fraction
        self.variant = variant
        self.validation_episodes = validation_episodes
        self.validation_lengths = ranges
        self.num_workers = num_workers
        self.seed = seed

    def _checked_ranges(self, typed: Sequence[Lengths | tuple[int, int] | str]) -> list[Lengths]:
        """Return the ranges; raise a ValueError for a wrong one now.

        Their episodes are first drawn at the end of the curriculum, which would be a late time for an error.
        """
        try:
            ranges = [Lengths.of(lengths) for lengths in typed]
        except ValueError as error:
            raise ValueError(f"Argument `validation_lengths`: {error}") from error
        for lengths in ranges:
            if lengths.high > LARGEST_SIZE:  # before drawing, which would take all memory
                raise ValueError(
                    f"Expected argument `validation_lengths` to hold lengths of at most {LARGEST_SIZE:,}, but got "
                    f"{lengths}."
                )
        try:
            for lengths in ranges:
                self.task.sample(1, lengths, generator=torch.Generator())
        except ValueError as error:
            raise ValueError(f"Argument `validation_lengths`: {error}") from error
        for lengths in ranges:
            if ranges.count(lengths) > 1:
                raise ValueError(
                    f"Expected argument `validation_lengths` to hold every range once, but got {lengths} twice."
                )
        return ranges

    def draw_lengths(self, generator: torch.Generator) -> tuple[tuple[int, int], int]:
        """Draw a batch's range of lengths (inclusive), at or below the current capacity, and the leaves of its tree."""
        capacity, smallest = self.capacity, self.min_capacity
        if capacity > smallest and torch.rand((), generator=generator) < self.smaller_fraction:
            levels = (capacity // smallest).bit_length() - 1
            capacity = smallest << int(torch.randint(levels, (), generator=generator))
        shortest = self.task.min_length
        high = int(torch.randint(shortest, capacity + 1, (2,), generator=generator).max())  # long ones more often
        spread = max(capacity // 8, self.task.length_step)
        if self.deeper_fraction > 0 and torch.rand((), generator=generator) < self.deeper_fraction:
            capacity <<= 1 + int(torch.randint(2, (), generator=generator))
        return (max(shortest, high - spread), high), capacity

    def train_dataloader(self) -> DataLoader[Episodes]:
        """Return the training batches of an epoch."""
        return self._loader(TrainingSampler(self))

    def val_dataloader(self) -> list[DataLoader[Episodes]]:
        """Return the set at the current capacity, then one for each of ``validation_lengths``.

        The latter are empty until the curriculum has ended: before, they would only cost time.
        """
        at_capacity = FixedSampler(self, "validation", None)
        return [self._loader(at_capacity)] + [
            self._loader(FixedSampler(self, "validation", lengths)) for lengths in self.validation_lengths
        ]

    def test_dataloader(self) -> list[DataLoader[Episodes]]:
        """Return fresh episodes of each of ``validation_lengths``."""
        return [self._loader(FixedSampler(self, "test", lengths)) for lengths in self.validation_lengths]

    def _loader(self, sampler: TrainingSampler | FixedSampler) -> DataLoader[Episodes]:
        return DataLoader(self.dataset, batch_size=None, sampler=sampler, num_workers=self.num_workers)

    def check_processes(self, processes: int) -> None:
        """Raise a ValueError if there are more ``processes`` than validation episodes."""
        if self.validation_episodes < processes:
            raise ValueError(
                f"Expected argument `validation_episodes` to be at least the number of processes "
                f"({processes}), but got {self.validation_episodes}."
            )

    def validation_batches(self, processes: int) -> int:
        """Return the number of batches of a validation set, of which each of ``processes`` takes a part."""
        return min(-(-self.validation_episodes // self.batch_size), self.validation_episodes // processes)

    def rank(self) -> tuple[int, int]:
        """Return this process's rank and the number of processes; (0, 1) without a Trainer."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
