"""A batch is named by its key: streams that are separate where they must be, and the same wherever they may be."""

import re
from types import SimpleNamespace

import pytest
import torch

from lightning_ham.tasks import Episodes
from lightning_ham.training import TaskDataModule

SMALL = {
    "batch_size": 4,
    "batches_per_epoch": 6,
    "capacity": 4,
    "start_capacity": 4,
    "smaller_fraction": 0.5,
    "validation_episodes": 10,
    "validation_lengths": ((1, 4), (5, 8)),
}


def make(task: str = "sort", rank: int = 0, processes: int = 1, **options) -> TaskDataModule:
    data = TaskDataModule(task, **(SMALL | options))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=processes)  # all that it asks of a Trainer
    return data


def train_batches(data: TaskDataModule, epoch: int = 0) -> list[Episodes]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # as the Trainer does
    return list(loader)


def episodes(batches: list[Episodes]) -> list[tuple[float, ...]]:
    """Every episode's cells, padding cut off."""
    return [
        tuple(cells[:length].flatten().tolist())
        for batch in batches
        for cells, length in zip(batch.inputs, batch.lengths, strict=True)
    ]


def same(first: list[Episodes], second: list[Episodes]) -> bool:
    return len(first) == len(second) and all(
        all(map(torch.equal, left, right)) for left, right in zip(first, second, strict=True)
    )


def shared(first: list[Episodes], second: list[Episodes]) -> set[tuple[float, ...]]:
    return set(episodes(first)) & set(episodes(second))


# Long episodes, so that two different streams have none in common: there are 1,024 pairs for each of 8 or more cells.
LONG = {"task": "reverse", "capacity": 16, "start_capacity": 16, "smaller_fraction": 0.0}


def long_only(batches: list[Episodes]) -> list[Episodes]:
    return [batch for batch in batches if batch.lengths.min() >= 4]


class TestTrainingStream:
    def test_is_the_same_when_drawn_again(self):
        assert same(train_batches(make()), train_batches(make()))

    @pytest.mark.parametrize("workers", [1, 2])
    def test_does_not_depend_on_workers(self, workers):
        assert same(train_batches(make(), epoch=3), train_batches(make(num_workers=workers), epoch=3))

    def test_does_not_depend_on_what_was_drawn_before(self):
        data = make()
        train_batches(data, epoch=0)
        torch.rand(5)
        assert same(train_batches(data, epoch=1), train_batches(make(), epoch=1))

    def test_batches_differ_from_each_other(self):
        drawn = long_only(train_batches(make(**LONG, batches_per_epoch=20)))
        assert len(drawn) > 10
        assert len(set(episodes(drawn))) == sum(len(batch.lengths) for batch in drawn)

    def test_epochs_differ(self):
        first, second = (long_only(train_batches(make(**LONG), epoch)) for epoch in (0, 1))
        assert first
        assert second
        assert not shared(first, second)

    def test_ranks_differ_in_episodes_but_not_in_lengths(self):
        first, second = (train_batches(make(**LONG, rank=rank, processes=2)) for rank in (0, 1))
        assert not shared(long_only(first), long_only(second))
        ranges = [
            [(key.lengths, key.capacity) for key in make(**LONG, rank=rank).train_dataloader().sampler]
            for rank in (0, 1)
        ]
        assert ranges[0] == ranges[1]
        assert len(set(ranges[0])) > 1

    def test_one_process_is_rank_0_of_any_number(self):
        data = TaskDataModule("sort", **SMALL)  # no Trainer
        assert same(train_batches(data), train_batches(make(rank=0, processes=2)))

    def test_splits_differ(self):
        # One range of lengths and one size of batch: nothing but the split is left to tell them apart.
        data = make("reverse", validation_episodes=64, batch_size=64, validation_lengths=[(8, 8)], batches_per_epoch=1)
        (validation,), (test,) = list(data.val_dataloader()[1]), list(data.test_dataloader()[0])
        key = next(iter(data.val_dataloader()[1].sampler))
        training = data.dataset[key._replace(split="train")]
        for first, second in ((validation, test), (validation, training), (test, training)):
            assert not shared([first], [second])

    def test_has_as_many_batches_and_episodes_as_asked_for(self):
        batches = train_batches(make(batches_per_epoch=7, batch_size=3))
        assert len(batches) == len(make(batches_per_epoch=7, batch_size=3).train_dataloader()) == 7
        assert {len(batch.lengths) for batch in batches} == {3}

    def test_hard_cases(self):
        """All keys of a hard case are from at most 8 adjacent ones; among 16 uniform ones that is one in a million."""
        hard, uniform = (
            train_batches(make(**(LONG | {"task": "sort", "batch_size": 64, "hard_fraction": share})))
            for share in (1.0, 0.0)
        )
        weights = torch.tensor([16.0, 8, 4, 2, 1])

        def spreads(batches):
            for batch in batches:
                for cells, length in zip(batch.inputs, batch.lengths.tolist(), strict=True):
                    if length >= 12:
                        keys = cells[:length, :5] @ weights
                        yield int(keys.max() - keys.min())

        assert max(spreads(hard)) < 8
        assert min(spreads(uniform)) >= 8


def drawn_lengths(data: TaskDataModule, draws: int = 4000) -> list[tuple[tuple[int, int], int]]:
    generator = torch.Generator().manual_seed(1)
    return [data.draw_lengths(generator) for _ in range(draws)]


class TestLengths:
    def test_follow_the_level_of_the_curriculum(self):
        data = make(capacity=32, start_capacity=2, smaller_fraction=0.0)
        for level in (2, 4, 8, 16, 32):
            data.capacity = level
            drawn = drawn_lengths(data)
            assert {capacity for _, capacity in drawn} == {level}
            assert {high for (_, high), _ in drawn} == set(range(1, level + 1))
            assert all(1 <= low <= high for (low, high), _ in drawn)
            for batch in train_batches(data):
                assert batch.inputs.shape[1] == level
                assert batch.lengths.max() <= level

    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_smaller_fraction_is_the_share_of_smaller_capacities(self, share):
        data = make(capacity=16, start_capacity=16, smaller_fraction=share)
        capacities = [capacity for _, capacity in drawn_lengths(data)]
        smaller = [capacity for capacity in capacities if capacity < 16]
        assert len(smaller) / len(capacities) == pytest.approx(share, abs=0.03)  # 4 standard errors
        for level in (1, 2, 4, 8):  # each as often as the others
            assert smaller.count(level) / len(capacities) == pytest.approx(share / 4, abs=0.03)

    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_deeper_fraction_is_the_share_of_trees_that_are_larger_than_they_need_be(self, share):
        data = make(capacity=8, start_capacity=8, smaller_fraction=0.0, deeper_fraction=share)
        drawn = drawn_lengths(data)
        assert max(high for (_, high), _ in drawn) == 8
        for factor in (2, 4):
            deeper = sum(capacity == factor * 8 for _, capacity in drawn)
            assert deeper / len(drawn) == pytest.approx(share / 2, abs=0.03)
        if not share:
            assert {capacity for _, capacity in drawn} == {8}

    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_shifted_fraction_is_the_share_of_batches_whose_instances_begin_elsewhere(self, share):
        options = {"capacity": 8, "start_capacity": 8, "deeper_fraction": 1.0, "batches_per_epoch": 200}
        batches = train_batches(make(**options, batch_size=4, shifted_fraction=share))
        elsewhere = sum(bool(batch.first_cells.any()) for batch in batches)
        assert elsewhere / len(batches) == pytest.approx(share, abs=0.13)  # 4 standard errors

    def test_lengths_of_a_smaller_capacity_fit_it(self):
        for (low, high), capacity in drawn_lengths(make(capacity=16, start_capacity=16, smaller_fraction=0.5)):
            assert 1 <= low <= high <= capacity

    def test_long_ones_come_more_often(self):
        highest = [high for (_, high), _ in drawn_lengths(make(capacity=16, start_capacity=16, smaller_fraction=0.0))]
        # The larger of two uniform lengths: P(16) = 31/256, P(1) = 1/256.
        assert highest.count(16) / len(highest) == pytest.approx(31 / 256, abs=0.02)
        assert highest.count(1) / len(highest) == pytest.approx(1 / 256, abs=0.004)

    def test_lengths_within_a_batch_lie_close_together(self):
        for (low, high), _ in drawn_lengths(make(capacity=32, start_capacity=32, smaller_fraction=0.0)):
            assert low == max(1, high - 4)

    def test_a_task_whose_shortest_instance_is_long_begins_there(self):
        data = make("add", capacity=16, start_capacity=1, smaller_fraction=0.5, validation_lengths=[(1, 16)])
        assert data.capacity == 4
        assert set(drawn_lengths(data, 100)) == {((4, 4), 4)}
        data.capacity = 16
        drawn = drawn_lengths(data)
        assert {capacity for _, capacity in drawn} == {4, 8, 16}
        for (low, high), capacity in drawn:
            assert 4 <= low <= high <= capacity
            assert any(length % 2 == 0 for length in range(low, high + 1))  # those that there are
        train_batches(data)

    def test_one_leaf_is_a_curriculum_too(self):
        data = make("reverse", capacity=1, start_capacity=1, smaller_fraction=1.0, validation_lengths=[(1, 1)])
        assert set(drawn_lengths(data, 100)) == {((1, 1), 1)}
        assert train_batches(data)[0].inputs.shape[1] == 1


class TestFixedSets:
    def test_are_the_same_at_every_call_and_epoch(self):
        data = make()
        first = [list(loader) for loader in data.val_dataloader()]
        for loader, batches in zip(data.val_dataloader(), first, strict=True):
            loader.sampler.set_epoch(5)  # as the Trainer does
            assert same(list(loader), batches)
            assert same(list(loader), batches)
        for ours, others in zip(first, make().val_dataloader(), strict=True):
            assert same(ours, list(others))

    @pytest.mark.parametrize("loaders", ["val_dataloader", "test_dataloader"])
    def test_do_not_depend_on_workers(self, loaders):
        pairs = zip(getattr(make(), loaders)(), getattr(make(num_workers=2), loaders)(), strict=True)
        assert all(same(list(first), list(second)) for first, second in pairs)

    def test_hold_the_lengths_in_the_smallest_tree(self):
        data = make(validation_episodes=200, batch_size=64, validation_lengths=[(1, 4), (5, 11), (20, 20)])
        current, *sets = data.val_dataloader()
        assert {length for batch in current for length in batch.lengths.tolist()} == {1, 2, 3, 4}
        for loaders in (sets, data.test_dataloader()):
            for (low, high), capacity, loader in zip([(1, 4), (5, 11), (20, 20)], (4, 16, 32), loaders, strict=True):
                batches = list(loader)
                assert sum(len(batch.lengths) for batch in batches) == 200
                assert {length for b in batches for length in b.lengths.tolist()} == set(range(low, high + 1))
                assert {batch.inputs.shape[1] for batch in batches} == {capacity}

    def test_hold_no_hard_cases(self):
        uniform, hard = (make(hard_fraction=share) for share in (0.0, 1.0))
        for first, second in zip(uniform.val_dataloader(), hard.val_dataloader(), strict=True):
            assert same(list(first), list(second))
        assert not same(train_batches(uniform), train_batches(hard))

    def test_the_current_one_follows_the_curriculum_and_the_others_wait_for_its_end(self):
        data = make(capacity=8, start_capacity=2, validation_lengths=[(1, 8), (9, 16)])
        sizes = []
        for level in (2, 4, 8):
            data.capacity = level
            drawn = [list(loader) for loader in data.val_dataloader()]
            assert drawn[0][0].inputs.shape[1] == level
            sizes.append([sum(len(batch.lengths) for batch in batches) for batches in drawn])
        assert sizes == [[10, 0, 0], [10, 0, 0], [10, 10, 10]]

    def test_the_test_sets_do_not_wait(self):
        data = make(capacity=8, start_capacity=2)
        assert [sum(len(batch.lengths) for batch in loader) for loader in data.test_dataloader()] == [10, 10]

    @pytest.mark.parametrize("loaders", ["val_dataloader", "test_dataloader"])
    @pytest.mark.parametrize(("processes", "episodes_in_set"), [(2, 10), (3, 10), (4, 9), (4, 4), (7, 10)])
    def test_every_rank_has_a_share_and_all_shares_are_the_whole(self, loaders, processes, episodes_in_set):
        options = LONG | {"validation_lengths": [(8, 16)], "validation_episodes": episodes_in_set}
        sets = [getattr(make(**options, rank=rank, processes=processes), loaders)()[-1] for rank in range(processes)]
        shares = [list(loader) for loader in sets]
        seen = [episode for share in shares for episode in episodes(share)]
        assert len(seen) == len(set(seen)) == episodes_in_set
        # The ranks meet in every batch, so each has as many, and none of them is empty.
        assert {len(share) for share in shares} == {len(loader) for loader in sets}
        assert len({len(share) for share in shares}) == 1
        assert min(len(batch.lengths) for share in shares for batch in share) > 0
        if processes == 2:  # the set of one process, as long as its batches can be shared
            assert sorted(seen) == sorted(episodes(list(getattr(make(**options), loaders)()[-1])))

    def test_fewer_episodes_than_processes(self):
        message = "Expected argument `validation_episodes` to be at least the number of processes (4), but got 3."
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            make(validation_episodes=3, processes=4).val_dataloader()

    @pytest.mark.parametrize(("episodes", "sizes"), [(1, [1]), (4, [4]), (5, [2, 3]), (8, [4, 4]), (10, [3, 3, 4])])
    def test_have_as_many_episodes_as_asked_for(self, episodes, sizes):
        for loader in make(validation_episodes=episodes).val_dataloader():
            assert [len(batch.lengths) for batch in loader] == sizes
            assert len(loader) == len(sizes)


def everything(data: TaskDataModule) -> list[list[Episodes]]:
    return [
        train_batches(data),
        *(list(loader) for loader in data.val_dataloader()),
        *(list(loader) for loader in data.test_dataloader()),
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"task": "reverse"},
        {"batch_size": 5},
        {"batches_per_epoch": 5},
        {"capacity": 8},
        {"start_capacity": 2},
        {"smaller_fraction": 0.0},
        {"deeper_fraction": 1.0},
        {"shifted_fraction": 1.0},
        {"hard_fraction": 1.0},
        {"validation_episodes": 9},
        {"validation_lengths": ((1, 4), (5, 7))},
        {"seed": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_argument_changes_the_episodes(changed):
    before, after = everything(make()), everything(make(**changed))
    assert len(before) == len(after)
    assert not all(same(first, second) for first, second in zip(before, after, strict=True))
    if "seed" in changed:  # every stream has its own
        assert not any(same(first, second) for first, second in zip(before, after, strict=True))


def test_workers_draw_and_change_nothing():
    data = make(num_workers=2)
    assert {loader.num_workers for loader in [data.train_dataloader(), *data.val_dataloader()]} == {2}
    for first, second in zip(everything(data), everything(make()), strict=True):
        assert same(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "srot"}, "Unknown task 'srot'; did you mean 'sort'?"),
        ({"batch_size": 0}, "Expected argument `batch_size` to be at least 1, but got 0."),
        ({"batches_per_epoch": 0}, "Expected argument `batches_per_epoch` to be at least 1, but got 0."),
        ({"validation_episodes": -1}, "Expected argument `validation_episodes` to be at least 1, but got -1."),
        ({"num_workers": -1}, "Expected argument `num_workers` to be at least 0, but got -1."),
        ({"capacity": 12}, "Expected argument `capacity` to be a power of two, but got 12."),
        ({"capacity": 0}, "Expected argument `capacity` to be a power of two, but got 0."),
        ({"start_capacity": 3}, "Expected argument `start_capacity` to be a power of two, but got 3."),
        (
            {"start_capacity": 8},
            "Expected argument `start_capacity` to be at most `capacity` (4), but got 8.",
        ),
        (
            {"task": "add", "capacity": 2, "start_capacity": 2},
            "Expected argument `capacity` to hold the shortest instance of task 'add', of 4 cells, but got 2.",
        ),
        ({"smaller_fraction": 1.5}, "Expected argument `smaller_fraction` to be between 0 and 1, but got 1.5."),
        ({"hard_fraction": -0.1}, "Expected argument `hard_fraction` to be between 0 and 1, but got -0.1."),
        (
            {"task": "reverse", "hard_fraction": 0.5},
            "Expected argument `hard_fraction` to be 0, as task 'reverse' has no hard cases, but got 0.5.",
        ),
        (
            {"validation_lengths": [(4, 1)]},
            "Argument `validation_lengths`: Expected lengths LOW-HIGH with 1 <= LOW <= HIGH, but got 4-1",
        ),
        (
            {"validation_lengths": [(1, 4), (0, 2)]},
            "Argument `validation_lengths`: Expected lengths LOW-HIGH with 1 <= LOW <= HIGH, but got 0-2",
        ),
        (
            {"task": "add", "validation_lengths": [(1, 3)]},
            "Argument `validation_lengths`: Expected lengths LOW-HIGH with a valid length of task 'add' among them",
        ),
        (
            {"validation_lengths": [(1, 4), (1, 4)]},
            "Expected argument `validation_lengths` to hold every range once, but got 1-4 twice.",
        ),
    ],
)
def test_wrong_argument(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make(**options)


def test_every_argument_has_a_test_of_its_effect_or_is_named_here():
    """A new argument without a case in test_every_argument_changes_the_episodes fails here."""
    (mark,) = test_every_argument_changes_the_episodes.pytestmark
    tested = {name for case in mark.args[1] for name in case}
    assert set(TaskDataModule("sort").hparams) == tested | {"num_workers", "variant"}  # see the test below


def test_a_variant_of_the_task_is_drawn_for_training_and_validation():
    data = TaskDataModule("merge", batch_size=8, batches_per_epoch=1, variant="grid", validation_lengths=[(1, 4)])
    for loader in (data.train_dataloader(), *data.test_dataloader()):
        for batch in loader:
            steps = batch.inputs[..., 0][batch.occupied].double() * 300
            assert (steps - steps.round()).abs().max() < 1e-3
    with pytest.raises(ValueError, match="Expected a variant of task 'merge'"):
        TaskDataModule("merge", variant="gird")


def test_is_rebuilt_from_its_hyper_parameters():
    data = make(hard_fraction=0.5, seed=3)
    again = TaskDataModule(**data.hparams)
    again.trainer = data.trainer
    for first, second in zip(everything(data), everything(again), strict=True):
        assert same(first, second)
