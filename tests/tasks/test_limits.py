"""What people need to know of an instance's size, and of its likeness to samples, to judge an answer."""

import pytest
import torch

from lightning_ham.tasks import get_task, task_names
from lightning_ham.tasks.merge import Merge

INSTANCES = {
    "reverse": ([7, 1000, 42], "3 numbers"),
    "sort": ([(9, 4), (2, 7)], "2 pairs"),
    "merge": ([[(0.2, 7)], [(0.5, 2)]], "2 pairs"),
    "search": (([(2, 7)], 2), "1 pair"),
    "add": ((2**63 - 1, 1), "63 bits"),
    "stack": ([("push", 7)], "1 operation"),
    "queue": ([("push", 7), ("pop",)], "2 operations"),
    "priority_queue": ([("push", 9, 4), ("push", 9, 4), ("pop",)], "3 operations"),
}


@pytest.mark.parametrize("name", task_names())
def test_a_size_is_said_in_what_the_instance_is_made_of(name):
    instance, words = INSTANCES[name]
    task = get_task(name)
    assert task.size_in_words(task.instance_length(instance)) == words


def test_lengths_are_said_in_units_only_where_those_are_not_cells():
    ranges = [(1, 32), "33:128", (129, 1024)]
    expected = "Lengths are numbers of cells: up to 15 bits at 1-32, 63 bits at 33-128, 511 bits at 129-1024."
    assert get_task("add").sizes_in_words(ranges) == expected
    expected = "Lengths are numbers of cells: up to 31 pairs at 1-32, 127 pairs at 33-128, 1,023 pairs at 129-1024."
    assert get_task("search").sizes_in_words(ranges) == expected
    for name in set(task_names()) - {"add", "search"}:
        assert get_task(name).sizes_in_words(ranges) == ""


@pytest.mark.parametrize("length", [4, 32, 128])
@pytest.mark.parametrize("name", task_names())
def test_no_sample_is_unlike_samples(name, length):
    task = get_task(name)
    for hard_fraction in (0.0, 0.5) if task.has_hard_cases else (0.0,):
        generator = torch.Generator().manual_seed(length)
        episodes = task.sample(200, (length, length), hard_fraction=hard_fraction, generator=generator)
        for inputs, occupied in zip(episodes.inputs, episodes.occupied, strict=True):
            assert task.outside_samples(task.decode_inputs(inputs, occupied)) is None


def test_priorities_closer_than_those_of_samples_are_told_from_which_distance_on():
    task, least = Merge(), Merge.least_distance
    for distance in (least, 2 * least, 0.1):
        assert task.outside_samples(([(0.5, 7)], [(0.2, 3), (0.5 + distance, 2)])) is None
    for distance in (0.9 * least, least / 100):
        told = task.outside_samples(([(0.5, 7)], [(0.2, 3), (0.5 + distance, 2)]))
        assert told == f"two priorities are {distance:.1g} apart, and those of samples at least {least:g}"
    assert task.outside_samples(([(0.5, 7)], [])) is None


@pytest.mark.parametrize("name", ["stack", "queue", "priority_queue"])
def test_a_structure_that_is_all_but_full_is_told(name):
    task = get_task(name)
    push = ("push", *(0 for _ in task.operands))
    assert task.outside_samples([push] * 64) is None
    assert task.outside_samples([push] * 115 + [("pop",)] * 13) is None
    told = "it holds 125 elements at a time in 128 operations, and hardly a sample as many"
    assert task.outside_samples([push] * 125 + [("pop",)] * 3) == told
