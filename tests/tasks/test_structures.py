"""Stack, queue and priority queue: hand-made cases, and samples held against the oracles in plain Python."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from lightning_ham.tasks import Episodes, InstanceError, get_task
from lightning_ham.tasks.episode import from_bits
from lightning_ham.tasks.fifo import Queue
from lightning_ham.tasks.priority_queue import PriorityQueue
from lightning_ham.tasks.stack import Stack
from lightning_ham.tasks.structures import Structure

TASKS: list[Structure] = [Stack(), Queue(), PriorityQueue()]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
POP = ("pop",)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def rows(episodes: Episodes) -> list[Episodes]:
    return [Episodes(*row) for row in zip(*episodes, strict=True)]


def popped_priorities(instance: list[Any]) -> list[int]:
    """The priority that every operation takes out, 0 where it takes none."""
    inside: list[tuple[int, int]] = []
    priorities = []
    for operation in instance:
        if operation == POP:
            inside.sort()
            priorities.append(inside.pop(0)[0])
        else:
            inside.append(operation[1:])
            priorities.append(0)
    return priorities


@pytest.mark.parametrize(
    ("name", "operations", "popped"),
    [
        ("stack", [("push", 7), ("push", 30), POP, ("push", 2), POP, POP], [30, 2, 7]),
        ("queue", [("push", 7), ("push", 30), POP, ("push", 2), POP, POP], [7, 30, 2]),
        ("priority_queue", [("push", 9, 4), ("push", 2, 7), POP, ("push", 30, 1), POP, POP], [7, 4, 1]),
        ("priority_queue", [("push", 3, 9), ("push", 3, 4), ("push", 3, 4), POP, POP, POP], [4, 4, 9]),
        ("priority_queue", [("push", 0, 31), ("push", 31, 0), POP, ("push", 0, 0), POP], [31, 0]),
        ("stack", [("push", 0)], []),
        ("queue", [["push", 31], ["pop"]], [31]),
    ],
)
def test_the_oracles(name: str, operations: list[Any], popped: list[int]) -> None:
    task = get_task(name)
    task.check(operations)
    assert task.oracle(operations) == popped
    (episode,) = rows(task.encode([operations]))
    assert task.decode(episode.targets, episode.inputs) == popped
    assert task.decode_inputs(episode.inputs, episode.occupied) == [tuple(operation) for operation in operations]


def test_cells() -> None:
    assert Stack().instance_to_cells([("push", 19), POP]).tolist() == [[0, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0]]
    cells = PriorityQueue().instance_to_cells([("push", 16, 1), POP])
    assert cells.tolist() == [[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1], [1] + 10 * [0]]
    assert PriorityQueue().operation_to_cell(("push", 16, 1)).tolist() == cells[0].tolist()


@every_task
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_samples_are_what_the_oracle_says_and_nothing_but_pops_is_scored(task: Structure, data: st.DataObject) -> None:
    low = data.draw(st.integers(1, 70))
    high = data.draw(st.integers(max(low, 2), 72))
    hard_fraction = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    generator = seeded(data.draw(st.integers(0, 2**32)))
    episodes = task.sample(16, (low, high), hard_fraction=hard_fraction, generator=generator)
    instances = [task.decode_inputs(episode.inputs, episode.occupied) for episode in rows(episodes)]
    for instance, episode in zip(instances, rows(episodes), strict=True):
        task.check(instance)
        assert task.decode(episode.targets, episode.inputs) == task.oracle(instance)
        is_pop = [operation == POP for operation in instance]
        hints = task.num_hints
        scored, hidden = episode.scored[: len(instance)].split((5, hints), dim=1)
        targets = episode.targets
        assert scored.all(1).tolist() == is_pop
        assert scored.any(1).tolist() == is_pop
        assert not hidden.any()
        assert targets[: len(instance), -2].tolist() == is_pop
        left_taken = [task.name == "queue" or not pops for pops in is_pop]
        assert targets[: len(instance), -1].tolist() == left_taken
        if task.name == "priority_queue":
            assert from_bits(targets[: len(instance), 5:10]).tolist() == popped_priorities(instance)
        assert not targets[: len(instance), :5][~torch.tensor(is_pop)].any()
        assert not episode.scored[len(instance) :].any()
        assert not targets[len(instance) :].any()
    hinted = torch.zeros_like(episodes.scored)
    hinted[:, :, 5:] = (torch.arange(hinted.shape[1]) < episodes.lengths.unsqueeze(1)).unsqueeze(-1)
    assert torch.equal(task.hinted(episodes), hinted)
    encoded = task.encode(instances, capacity=episodes.inputs.shape[1])
    assert all(map(torch.equal, encoded, episodes))


@every_task
def test_long_samples(task: Structure) -> None:
    for episode in rows(task.sample(4, (1024, 1024), hard_fraction=0.5, generator=seeded(0))):
        instance = task.decode_inputs(episode.inputs, episode.occupied)
        assert task.decode(episode.targets, episode.inputs) == task.oracle(instance)


@every_task
def test_operation_t_of_m_is_a_pop_with_probability_t_over_m(task: Structure) -> None:
    length, episodes = 8, task.sample(8_000, (8, 8), generator=seeded(0))
    is_pop = episodes.inputs[:, :, 0] == 1
    sizes = torch.cat([torch.zeros(8_000, 1), (1 - 2 * is_pop.float()).cumsum(1)], dim=1)[:, :-1]  # before each
    assert not is_pop[sizes == 0].any()
    for t in range(length):
        pops = is_pop[sizes[:, t] > 0, t].float()
        chance = (t + 1) / length
        if t:
            assert abs(float(pops.mean()) - chance) < 5 * (chance * (1 - chance) / len(pops)) ** 0.5 + 1e-6


@every_task
def test_every_episode_scores_something_and_values_are_uniform(task: Structure) -> None:
    episodes = task.sample(4_000, (1, 9), generator=seeded(0))
    assert episodes.scored.any(2).any(1).all()
    assert episodes.lengths.min() == 2
    pushed = episodes.occupied & (episodes.inputs[:, :, 0] == 0)
    shares = episodes.inputs[pushed][:, -5:].mean(0)
    assert ((shares - 0.5).abs() < 0.02).all()


@every_task
def test_hard_cases_fill_the_structure(task: Structure) -> None:
    def largest(hard_fraction: float) -> float:
        episodes = task.sample(500, (32, 32), hard_fraction=hard_fraction, generator=seeded(0))
        return float((1 - 2 * episodes.inputs[:, :, 0]).cumsum(1).amax(1).quantile(0.9))

    assert largest(1.0) > 1.3 * largest(0.0)


def test_sampled_priorities_are_distinct_as_long_as_there_are_others() -> None:
    episodes = PriorityQueue().sample(64, (40, 40), generator=seeded(0))
    priorities = [
        [operation[1] if len(operation) > 1 else None for operation in PriorityQueue().decode_inputs(*row)]
        for row in zip(episodes.inputs, episodes.occupied, strict=True)
    ]
    for row in priorities:
        first = [priority for priority in row[:32] if priority is not None]
        assert len(set(first)) == len(first)
    assert {priority for row in priorities for priority in row} == {None, *range(32)}


def test_hard_cases_of_the_priority_queue_have_adjacent_pairs() -> None:
    episodes = PriorityQueue().sample(256, (64, 64), hard_fraction=1.0, generator=seeded(0))
    spans = []
    for row in zip(episodes.inputs, episodes.occupied, strict=True):
        pairs = [32 * push[1] + push[2] for push in PriorityQueue().decode_inputs(*row) if push != POP]
        spans.append(max(pairs) - min(pairs) + 1)
    assert max(spans) <= 256
    assert max(spans) > 200
    assert min(spans) <= 8
    assert 0.3 < sum(span <= 45 for span in spans) / len(spans) < 0.7  # half of them below sqrt(8 * 256)


@pytest.mark.parametrize(
    ("name", "operations", "leaves"),
    [
        ("stack", [("push", 7), ("push", 30), POP, ("push", 2), POP, POP], [0, 1, 1, 1, 1, 0]),
        ("queue", [("push", 7), ("push", 30), POP, ("push", 2), POP, POP], [0, 1, 0, 2, 1, 2]),
        ("priority_queue", [("push", 9, 4), ("push", 2, 7), POP, ("push", 30, 1), POP, POP], [0, 1, 1, 1, 0, 1]),
        ("priority_queue", [("push", 9, 4), ("push", 9, 3), POP, POP, ("push", 1, 1)], [0, 1, 1, 0, 0]),
    ],
)
def test_the_guide(name: str, operations: list[Any], leaves: list[int]) -> None:
    task = get_task(name)
    assert task.guide(task.encode([operations]))[0].tolist() == [[leaf] for leaf in leaves]


@every_task
def test_the_guide_pushes_to_free_leaves_and_pops_what_the_oracle_pops(task: Structure) -> None:
    episodes = task.sample(32, (2, 40), hard_fraction=0.5, generator=seeded(0))
    for episode, path in zip(rows(episodes), task.guide(episodes).squeeze(-1).tolist(), strict=True):
        instance = task.decode_inputs(episode.inputs, episode.occupied)
        inside: dict[int, Any] = {}
        popped, used = [], set()
        for operation, leaf in zip(instance, path, strict=False):
            if operation == POP:
                popped.append(inside.pop(leaf)[-1])
            else:
                assert leaf not in (used if task.name == "queue" else inside)
                inside[leaf] = operation
                used.add(leaf)
        assert popped == task.oracle(instance)


@pytest.mark.parametrize(
    ("name", "instance", "message"),
    [
        ("stack", 5, "Expected a list of operations, but got int"),
        ("stack", [], "Expected a list of operations, but got an empty one"),
        ("stack", [("push", 5), 5], "Expected ('pop',) or ('push', value), but got int (operation 2)"),
        ("stack", [()], "Expected ('pop',) or ('push', value), but got () (operation 1)"),
        ("stack", [("peek",)], "Expected ('pop',) or ('push', value), but got ('peek',) (operation 1)"),
        ("stack", [("push", 1, 2)], "Expected ('pop',) or ('push', value), but got ('push', 1, 2) (operation 1)"),
        ("priority_queue", [("push", 1)], "or ('push', priority, value), but got ('push', 1) (operation 1)"),
        ("stack", [("pop", 1)], "Expected ('pop',) or ('push', value), but got ('pop', 1) (operation 1)"),
        ("queue", [("push", 32)], "Expected values from 0 to 31, but got 32 (operation 1)"),
        ("queue", [("push", True)], "Expected values that are integers, but got bool (operation 1)"),
        ("priority_queue", [("push", 32, 1)], "Expected priorities from 0 to 31, but got 32 (operation 1)"),
        ("priority_queue", [POP], "Expected something to pop, but got an empty priority queue (operation 1)"),
        ("queue", [("push", 1), POP, POP], "Expected something to pop, but got an empty queue (operation 3)"),
    ],
)
def test_what_is_no_instance(name: str, instance: Any, message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)):
        get_task(name).check(instance)


def test_an_answer_cannot_be_read_without_the_operations() -> None:
    with pytest.raises(ValueError, match="Expected the episode's inputs beside its outputs"):
        Stack().decode(torch.zeros(2, 7))


def test_hints_of_the_queue_tell_leaves_that_are_spent() -> None:
    """For each of two states, whether it was found and whether it is left: spent, then taken."""
    operations = [("push", 7), POP, ("push", 2)]
    (episode,) = rows(Queue().encode([operations]))
    assert episode.targets[:3, 5:].tolist() == [[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize(("task", "early"), [(Stack(), [0.1, 0.5]), (Queue(), [0.1, 0.5]), (PriorityQueue(), [0.1])])
def test_hard_cases_have_the_early_pops_of_their_task(task: Structure, early: list[float]) -> None:
    """The first operation is a push; the second comes before the turn in all but 2 of 64 episodes."""
    episodes = task.sample(10_000, (64, 64), hard_fraction=1.0, generator=seeded(1))
    pops = episodes.inputs[:, 1, 0].mean().item()
    expected = sum(early) / len(early) * 62 / 64 + 0.9 * 2 / 64
    assert pops == pytest.approx(expected, abs=0.02)


def test_samples_without_hard_cases_do_not_hang_on_how_those_are_drawn() -> None:
    before = Stack().sample(16, (2, 40), generator=seeded(3))

    class Other(Stack):
        early_pops = (0.3, 0.2, 0.7)

    assert all(map(torch.equal, Other().sample(16, (2, 40), generator=seeded(3)), before))
