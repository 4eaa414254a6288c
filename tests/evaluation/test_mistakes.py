"""Wrong sequences are told apart by kind: shown on mistakes that are planted."""

import torch

from lightning_ham.evaluation.mistakes import EXAMPLES, MistakeCounter
from lightning_ham.tasks import get_task


def mistakes(task_name, instances, plant):
    """Count the mistakes of answers that are the oracle's, but for what ``plant`` changes in them."""
    task = get_task(task_name)
    episodes = task.encode(instances)
    bits = episodes.targets.clone()
    plant(bits)
    counter = MistakeCounter(task)
    for row in range(len(bits)):  # a batch each
        counter.update(2 * bits[row : row + 1] - 1, type(episodes)(*(part[row : row + 1] for part in episodes)))
    together = MistakeCounter(task)
    together.update(2 * bits - 1, episodes)
    assert counter.compute() == together.compute()
    return counter.compute()


def test_right_answers_are_no_mistakes():
    assert mistakes("reverse", [[1, 2], [3]], lambda bits: None) == {
        "end": 0,
        "order": 0,
        "symbols": 0,
        "examples": [],
    }


def test_kinds_and_examples():
    def plant(bits):
        bits[0, [0, 1]] = bits[0, [1, 0]]  # two symbols exchanged
        bits[1, 1, 9] = 1 - bits[1, 1, 9]  # 2 becomes 3
        bits[2, 1, 10] = 1.0  # ends too early
        bits[3, 3, 10] = 0.0  # does not end
        bits[4, 3:] = 1.0  # after the end, where nothing counts but the end itself

    instances = [[7, 8, 9, 10], [1, 2, 3], [4, 5], [1, 2, 3], [6, 6, 6]]
    found = mistakes("reverse", instances, plant)
    assert {kind: found[kind] for kind in ("end", "order", "symbols")} == {"end": 2, "order": 1, "symbols": 1}
    assert found["examples"] == [
        {"length": 2, "timestep": 1, "expected": "4", "got": "end", "wrong_symbols": 1, "symbols": 3},
        {"length": 3, "timestep": 1, "expected": "2", "got": "3", "wrong_symbols": 1, "symbols": 4},
        {"length": 3, "timestep": 3, "expected": "end", "got": "0", "wrong_symbols": 1, "symbols": 4},
    ]
    assert len(found["examples"]) == EXAMPLES


def test_only_what_is_scored_counts():
    """The first timestep of Search is silent, and it has no end."""

    def plant(bits):
        bits[0, 0] = 1.0
        bits[1, 1] = 1 - bits[1, 1]

    instances = [([(1, 2), (3, 4)], 3), ([(1, 2), (3, 4)], 1)]
    found = mistakes("search", instances, plant)
    assert (found["end"], found["order"], found["symbols"]) == (0, 0, 1)
    assert found["examples"] == [
        {"length": 3, "timestep": 1, "expected": "2", "got": "29", "wrong_symbols": 1, "symbols": 1}
    ]


def test_symbols_in_another_order_are_told_from_others_of_the_same_sum():
    def plant(bits):
        two = torch.tensor([0.0, 0, 0, 1, 0])
        bits[0, :2, :10] = torch.cat((two, two))  # (1, 3) and (3, 1) become twice (2, 2)

    found = mistakes("sort", [[(3, 1), (1, 3)]], plant)
    assert (found["order"], found["symbols"]) == (0, 1)
