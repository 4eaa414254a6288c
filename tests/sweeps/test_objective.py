"""How trainings are judged: solved, then the level, then the error; and the median of seeds."""

import itertools

import pytest

from lightning_ham.sweeps.objective import Goal, in_words, judge, median

GOAL = Goal(capacity=32, bar={"1-32": 0.01}, patience=2)


def curve(*points):
    """Return a learning curve of (leaves, error) after every 1,000 episodes."""
    return [
        {"update": 10 * n, "episodes": 1000 * n, "seconds": n, "capacity": leaves, "errors": {"1-32": error}}
        for n, (leaves, error) in enumerate(points, start=1)
    ]


def value(*points):
    return judge(curve(*points), GOAL, seed=1)["value"]


def test_from_best_to_worst():
    ranked = [
        value((32, 0.0), (32, 0.01)),  # solved at once
        value((16, 0.5), (32, 0.0), (32, 0.01)),  # solved later
        value((32, 0.0)),  # not for long enough
        value((32, 0.0), (32, 0.5)),  # not to its end: as good as its best validation
        value((32, 0.0101), (32, 0.0101)),
        value((32, 0.9)),
        value((16, 0.1)),
        value((16, 0.9), (16, 0.95)),
        value((2, 0.0)),
        value((2, 0.3), (2, 0.2)),
        value((1, 0.99)),
        judge([], GOAL, seed=1)["value"],
    ]
    for better, worse in itertools.pairwise(ranked):
        assert better <= worse
    assert ranked[2] == ranked[3] == 0
    assert len(set(ranked)) == len(ranked) - 1
    assert all((number < 0) == (place < 2) for place, number in enumerate(ranked))


def test_solved_is_below_zero_however_long_it_took():
    slow = curve((32, 0.0), (32, 0.0))
    slow[-1]["episodes"] = 10**12
    assert -1e-5 < judge(slow, GOAL, seed=1)["value"] < 0


def test_without_a_bar_nothing_is_solved():
    judged = judge(curve((32, 0.0)), GOAL._replace(bar={}), seed=1)
    assert (judged["solved"], judged["value"]) == (False, 0.0)


def test_one_that_goes_on_is_not_solved_yet():
    points = curve((32, 0.0), (32, 0.0))
    assert judge(points, GOAL, seed=1)["solved"]
    assert not judge(points, GOAL, seed=1, has_ended=False)["solved"]


def test_a_validation_before_the_end_of_its_epoch_does_not_count():
    points = curve((32, 0.5), (0, 0.0))
    assert judge(points, GOAL, seed=1)["value"] == 0.5


@pytest.mark.parametrize(("values", "expected"), [([3, 1, 2], 2), ([2, 1], 2), ([1], 1), ([4, 1, 3, 2], 3)])
def test_the_median_is_the_worse_of_two(values, expected):
    trainings = [judge([], GOAL, seed) | {"value": value} for seed, value in enumerate(values)]
    assert median(trainings)["value"] == expected


def test_words():
    assert in_words(judge(curve((16, 0.125)), GOAL, 1), GOAL) == "16 of 32 leaves, 12.5 % wrong"
    assert in_words(judge(curve((32, 0.0), (32, 0.0)), GOAL, 1), GOAL) == "solved after 2,000 episodes"
