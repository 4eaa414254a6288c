"""What Merge's samples are made of: priorities that are any 32-bit numbers a least distance apart, and the paper's."""

import pytest
import torch

from lightning_ham.tasks import get_task

MERGE = get_task("merge")


def priorities(length: int, hard_fraction: float = 0.0, variant: str | None = None, batch: int = 400) -> torch.Tensor:
    """Of each instance, ascending, [batch, length]."""
    generator = torch.Generator().manual_seed(length)
    episodes = MERGE.sample(batch, (length, length), hard_fraction=hard_fraction, variant=variant, generator=generator)
    return episodes.inputs[:, :length, 0].sort(dim=1).values


@pytest.mark.parametrize("variant", [None, "grid"])
@pytest.mark.parametrize("hard_fraction", [0.0, 1.0])
@pytest.mark.parametrize("length", [1, 2, 32, 300, 1024])
def test_every_sample_is_a_valid_instance_with_the_answer_of_the_oracle(length, hard_fraction, variant):
    episodes = MERGE.sample(
        20,
        (length, length),
        hard_fraction=hard_fraction,
        variant=variant,
        generator=torch.Generator().manual_seed(1),
    )
    for inputs, occupied, targets in zip(episodes.inputs, episodes.occupied, episodes.targets, strict=True):
        instance = MERGE.decode_inputs(inputs, occupied)
        MERGE.check(instance)
        assert MERGE.decode(targets.bool(), inputs) == MERGE.oracle(instance)


@pytest.mark.parametrize("hard_fraction", [0.0, 1.0])
@pytest.mark.parametrize("length", [2, 32, 1024])
def test_no_two_priorities_are_closer_than_the_least_distance(length, hard_fraction):
    assert priorities(length, hard_fraction).diff(dim=1).min() >= MERGE.least_distance


def test_priorities_are_on_no_grid_and_anywhere_from_0_to_1():
    drawn = priorities(32)
    steps = drawn.double() * 300
    assert ((steps - steps.round()).abs() < 1e-3).double().mean() < 0.02
    assert drawn.min() < 0.01
    assert drawn.max() > 0.99
    assert abs(float(drawn.mean()) - 0.5) < 0.01


def test_half_of_the_hard_cases_have_neighbours_a_few_least_distances_apart():
    mean = priorities(32, 1.0, batch=2_000).diff(dim=1).mean(dim=1)
    fine = (mean < 3.5 * MERGE.least_distance).double().mean()
    assert 0.5 < fine < 0.65  # and some of the others, which go on from there
    assert mean.max() > 0.01
    starts = priorities(32, 1.0, batch=2_000)[:, 0]
    assert starts.min() < 0.05
    assert starts.max() > 0.95


def test_so_many_priorities_that_they_must_be_closer_are_distinct_all_the_same():
    drawn = priorities(1 << 17, batch=1)
    assert drawn.diff(dim=1).min() > 0
    assert drawn.max() <= 1


def test_the_papers_priorities_are_multiples_of_a_300th():
    steps = priorities(32, variant="grid").double() * 300
    assert (steps - steps.round()).abs().max() < 1e-4
    assert steps.round().min() == 1
    assert steps.round().max() == 300


def test_the_first_sequence_is_any_part_of_the_pairs():
    episodes = MERGE.sample(3_000, (4, 4), generator=torch.Generator().manual_seed(0))
    lengths = (episodes.inputs[..., -1] == 0).sum(dim=1)
    counts = lengths.bincount(minlength=5)
    assert (counts > 500).all()
    # Of two and two, each of the six ways in which they can lie between each other comes as often as the others.
    two = episodes.inputs[lengths == 2]
    order = two[..., 0].argsort(dim=1)
    ways = two[..., -1].gather(1, order) @ torch.tensor([8.0, 4.0, 2.0, 1.0])
    assert len(ways.unique()) == 6
    assert (ways.unique(return_counts=True)[1] > 60).all()


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"Expected a variant of task 'merge' \(grid\), but got 'gird'"):
        MERGE.sample(1, (1, 4), variant="gird")
    with pytest.raises(ValueError, match=r"Expected a variant of task 'sort' \(none\), but got 'grid'"):
        get_task("sort").sample(1, (1, 4), variant="grid")
