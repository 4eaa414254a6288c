"""The five sequence tasks: oracles against brute force, the code to the bit, distributions, and checks."""

from itertools import groupby
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from lightning_ham.tasks import Episodes, InstanceError, Task, get_task
from lightning_ham.tasks.add import Add
from lightning_ham.tasks.episode import from_bits
from lightning_ham.tasks.merge import Merge
from lightning_ham.tasks.reverse import Reverse
from lightning_ham.tasks.search import Search
from lightning_ham.tasks.sort import Sort

five_bits = st.integers(0, 31)
pairs = st.lists(st.tuples(five_bits, five_bits), min_size=1, max_size=20)


@st.composite
def search_instances(draw: st.DrawFn) -> Any:
    table = sorted(draw(pairs), key=lambda pair: pair[0])
    return table, draw(st.sampled_from(table))[0]


@st.composite
def merge_instances(draw: st.DrawFn) -> Any:
    priority = st.floats(0, 1, exclude_min=True, width=32)
    priorities = draw(st.lists(priority, min_size=1, max_size=20, unique=True))
    rows = [(priority, draw(five_bits)) for priority in priorities]
    split = draw(st.integers(0, len(rows)))
    return sorted(rows[:split]), sorted(rows[split:])


INSTANCES: dict[str, st.SearchStrategy[Any]] = {
    "reverse": st.lists(st.integers(0, 1023), min_size=1, max_size=20),
    "search": search_instances(),
    "merge": merge_instances(),
    "sort": pairs,
    "add": st.tuples(st.integers(0, 2**100), st.integers(0, 2**100)),
}

every_task = pytest.mark.parametrize("name", INSTANCES)


def brute_force_reverse(instance: list[int]) -> list[int]:
    return [instance[len(instance) - 1 - index] for index in range(len(instance))]


def brute_force_search(instance: tuple[list[tuple[int, int]], int]) -> int:
    table, query = instance
    return next(value for key, value in table if key == query)


def brute_force_merge(instance: tuple[list[tuple[float, int]], list[tuple[float, int]]]) -> list[int]:
    left, answer = instance[0] + instance[1], []
    while left:
        smallest = min(left)
        left.remove(smallest)
        answer.append(smallest[1])
    return answer


def brute_force_sort(instance: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [pair for key in range(32) for pair in instance if pair[0] == key]


def brute_force_add(instance: tuple[int, int]) -> int:
    first, second = instance
    while second:  # a half adder for all digits at once, until no carry is left
        first, second = first ^ second, (first & second) << 1
    return first


BRUTE_FORCE: dict[str, Any] = {
    "reverse": brute_force_reverse,
    "search": brute_force_search,
    "merge": brute_force_merge,
    "sort": brute_force_sort,
    "add": brute_force_add,
}


@every_task
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_oracle_and_code(name: str, data: st.DataObject) -> None:
    task = get_task(name)
    batch = data.draw(st.lists(INSTANCES[name], min_size=1, max_size=3))
    episodes = task.encode(batch)
    for instance, inputs, occupied, targets in zip(batch, *episodes[:3], strict=True):
        assert task.oracle(instance) == BRUTE_FORCE[name](instance)
        assert task.decode_inputs(inputs, occupied) == instance
        assert task.decode(targets) == task.oracle(instance)


# The episodes drawn in the docstrings, to the bit.


def bits(*rows: str) -> list[list[float]]:
    return [[float(bit) for bit in row.replace(" ", "")] for row in rows]


def test_reverse_to_the_bit() -> None:
    episodes = Reverse().encode([[7, 1000, 42]])
    assert episodes.inputs[0].tolist() == bits("0000000111", "1111101000", "0000101010", "0000000000")
    assert episodes.targets[0].tolist() == bits("0000101010 0", "1111101000 0", "0000000111 0", "0000000000 1")


def test_search_to_the_bit() -> None:
    episodes = Search().encode([([(2, 7), (9, 4), (9, 1), (30, 7)], 9)])
    cells = bits("00010 00111", "01001 00100", "01001 00001", "11110 00111", "01001 00000")
    assert episodes.inputs[0].tolist() == cells + [[0.0] * 10] * 3
    assert episodes.targets[0].tolist() == bits("00000 01001", "00100 01001")
    assert episodes.scored[0].tolist() == [[False] * 10, [True] * 5 + [False] * 5]
    assert Search().hinted(episodes)[0].tolist() == [[False] * 5 + [True] * 5] * 2


def test_merge_to_the_bit() -> None:
    episodes = Merge().encode([([(0.25, 7), (1.0, 1)], [(0.125, 30), (0.5, 2)])])
    assert episodes.inputs[0].tolist() == [
        [0.25, 0, 0, 1, 1, 1, 0],
        [1.00, 0, 0, 0, 0, 1, 0],
        [0.125, 1, 1, 1, 1, 0, 1],
        [0.5, 0, 0, 0, 1, 0, 1],
    ]
    assert episodes.targets[0].tolist() == bits("11110 0", "00111 0", "00010 0", "00001 0", "00000 1")


def test_sort_to_the_bit() -> None:
    episodes = Sort().encode([[(9, 4), (2, 7), (9, 1)]])
    assert episodes.inputs[0].tolist() == bits("01001 00100", "00010 00111", "01001 00001", "00000 00000")
    outputs = bits("00010 00111 0", "01001 00100 0", "01001 00001 0", "00000 00000 1")
    assert episodes.targets[0].tolist() == outputs


def test_add_to_the_bit() -> None:
    episodes = Add().encode([(6, 3)])
    assert episodes.inputs[0].tolist() == bits("000", "100", "100", "010", "100", "100", "000", "001")
    assert episodes.targets[0].tolist() == bits("1 01 0", "0 11 0", "0 10 0", "1 00 0", "0 00 1")
    assert episodes.scored[0].tolist() == [[True, False, False, True]] * 4 + [[False, False, False, True]]
    assert Add().hinted(episodes)[0].tolist() == [[False, True, True, False]] * 4 + [[False] * 4]


def test_hints_of_add_are_those_of_every_length() -> None:
    short, long = Add().encode([(1, 1), (6, 3)]).targets
    assert short.tolist() == bits("0 11 0", "1 00 0", "0 00 1", "0 00 0", "0 00 0")
    assert long.tolist() == bits("1 01 0", "0 11 0", "0 10 0", "1 00 0", "0 00 1")


def test_the_guide_of_add_reads_digit_by_digit() -> None:
    guide = Add().guide(Add().encode([(1, 1), (6, 3)]))
    assert guide[0].tolist() == [[0, 2], [1, 3], [1, 3], [1, 3], [1, 3]]
    assert guide[1].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7], [3, 7]]


def test_the_guide_of_search_reads_the_query_and_then_the_first_pair_with_its_key() -> None:
    task = Search()
    episodes = task.encode([([(2, 7), (9, 4), (9, 1), (30, 7)], 9), ([(9, 1), (9, 3)], 9)])
    assert task.guide(episodes).squeeze(-1).tolist() == [[4, 1], [2, 0]]
    # A blank cell has the bits of key 0, and is no pair.
    assert task.guide(shifted_by(task.encode([([(0, 7), (1, 1)], 0)], capacity=8), 5)).flatten().tolist() == [7, 5]


def shifted_by(episodes: Episodes, cells: int) -> Episodes:
    return episodes._replace(inputs=episodes.inputs.roll(cells, 1), occupied=episodes.occupied.roll(cells, 1))


@pytest.mark.parametrize(
    ("task", "instance", "guide"),
    [
        (Reverse(), [7, 1000, 42], [2, 1, 0, 0]),
        (Merge(), ([(0.25, 7), (1.0, 1)], [(0.125, 30), (0.5, 2)]), [2, 0, 3, 1, 1]),
        (Sort(), [(9, 4), (0, 7), (9, 1), (8, 3)], [1, 3, 0, 2, 2]),
    ],
    ids=["reverse", "merge", "sort"],
)
def test_the_guide_reads_in_the_order_of_the_answer_and_then_the_last_again(
    task: Any, instance: Any, guide: Any
) -> None:
    assert task.guide(task.encode([instance], capacity=8)).flatten().tolist() == guide


@pytest.mark.parametrize("task", [Reverse(), Search(), Merge(), Sort(), Add()], ids=lambda task: task.name)
def test_the_guide_follows_an_instance_that_begins_elsewhere(task: Any) -> None:
    episodes = task.sample(16, (task.min_length, 12), capacity=32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(task.guide(shifted_by(episodes, 20)), task.guide(episodes) + 20)


def test_hints_of_search_are_the_query_of_every_length() -> None:
    short, long = Search().encode([([(9, 1)], 9), ([(2, 7), (30, 3)], 30)]).targets
    assert short.tolist() == bits("00000 01001", "00001 01001")
    assert long.tolist() == bits("00000 11110", "00011 11110")


# Lists in the place of tuples, as JSON has no tuples.


@pytest.mark.parametrize(
    ("name", "instance", "answer"),
    [
        ("search", [[[2, 7], [9, 4]], 9], 4),
        ("merge", [[[0.5, 7]], [[0.25, 4]]], [4, 7]),
        ("sort", [[9, 4], [2, 7]], [(2, 7), (9, 4)]),
        ("add", [6, 3], 9),
    ],
)
def test_lists_will_do_for_tuples(name: str, instance: Any, answer: Any) -> None:
    task = get_task(name)
    assert task.oracle(instance) == answer
    assert task.decode(task.encode([instance]).targets[0]) == answer


def test_merge_takes_an_integer_priority_and_an_empty_sequence() -> None:
    task = Merge()
    assert task.decode(task.encode([([], [(1, 5)])]).targets[0]) == [5]


def test_add_writes_zero_with_one_digit() -> None:
    assert Add().encode([(0, 0)]).lengths.tolist() == [4]


def test_add_reads_an_empty_output_as_zero() -> None:
    assert Add().decode(torch.tensor([[0, 0, 0, 1]])) == 0


# Distributions.


def sample(
    task: Task[Any, Any], length: int, hard_fraction: float, batch_size: int = 1_000, variant: str | None = None
) -> Episodes:
    generator = Generator().manual_seed(length)
    return task.sample(batch_size, (length, length), hard_fraction=hard_fraction, variant=variant, generator=generator)


def spans_of_keys(task: Task[Any, Any], episodes: Episodes) -> list[int]:
    """One more than the difference of the largest and the smallest key of each episode."""
    num_pairs = int(episodes.lengths[0]) - (task.name == "search")
    keys = from_bits(episodes.inputs[:, :num_pairs, :5])
    return (1 + keys.amax(1) - keys.amin(1)).tolist()


@pytest.mark.parametrize("task", [Search(), Sort()], ids=lambda task: task.name)
def test_hard_keys_are_adjacent(task: Task[Any, Any]) -> None:
    assert min(spans_of_keys(task, sample(task, 40, 0.0))) > 16
    assert set(spans_of_keys(task, sample(task, 40, 1.0))) == {2, 3, 4, 5, 6, 7, 8}
    hard = sum(span <= 8 for span in spans_of_keys(task, sample(task, 40, 0.3)))
    assert 200 < hard < 400


def test_hard_keys_lie_anywhere() -> None:
    keys = from_bits(sample(Sort(), 40, 1.0).inputs[:, :40, :5])
    assert keys.unique().tolist() == list(range(32))


@pytest.mark.parametrize("name", ["reverse", "search", "merge", "sort"])
@pytest.mark.parametrize("hard_fraction", [0.0, 1.0])
def test_every_bit_is_zero_as_often_as_one(name: str, hard_fraction: float) -> None:
    task = get_task(name)
    episodes = sample(task, 4, hard_fraction * task.has_hard_cases, batch_size=4_000)
    bits = episodes.inputs[:, 0, 1:-1] if name == "merge" else episodes.inputs[:, 0]
    # In Search the first pair has the smallest key, so only its value is uniform.
    bits = bits[:, 5:] if name == "search" else bits
    assert ((bits.mean(0) - 0.5).abs() < 0.05).all()


def test_the_query_may_be_any_pairs() -> None:
    episodes = sample(Search(), 5, 0.0)
    keys = episodes.inputs[:, :4, :5]
    found = (keys == episodes.inputs[:, 4:5, :5]).all(-1)
    assert found.any(1).all()
    assert (found.float().mean(0) > 0.2).all()


def steps_of_priorities(episodes: Episodes, num_priorities: int) -> Tensor:
    """Priorities as multiples of the step between them, sorted, [batch, length]."""
    multiples = episodes.inputs[..., 0][episodes.occupied].view(len(episodes.lengths), -1) * num_priorities
    assert torch.allclose(multiples, multiples.round(), atol=1e-3)
    return multiples.round().long().sort(1).values


def test_priorities_are_spread_over_300_multiples() -> None:
    multiples = steps_of_priorities(sample(Merge(), 30, 0.0, variant="grid"), 300)
    assert (multiples.diff() > 0).all()
    assert torch.unique(multiples).tolist() == list(range(1, 301))
    assert (multiples[:, -1] - multiples[:, 0]).float().mean() > 250


def test_hard_priorities_lie_in_a_narrow_window() -> None:
    multiples = steps_of_priorities(sample(Merge(), 30, 1.0, variant="grid"), 300)
    assert (multiples.diff() > 0).all()
    spans = multiples[:, -1] - multiples[:, 0] + 1
    assert 30 <= spans.min() < 35
    assert 80 < spans.max() <= 90
    assert torch.unique(multiples).tolist() == list(range(1, 301))


@pytest.mark.parametrize("hard_fraction", [0.0, 1.0])
def test_many_priorities_are_as_many_multiples(hard_fraction: float) -> None:
    multiples = steps_of_priorities(sample(Merge(), 500, hard_fraction, batch_size=4, variant="grid"), 500)
    assert multiples.tolist() == [list(range(1, 501))] * 4


def test_either_sequence_may_be_of_any_length() -> None:
    episodes = sample(Merge(), 5, 0.0)
    num_second = episodes.inputs[..., -1].sum(1)
    assert torch.unique(num_second).tolist() == [0, 1, 2, 3, 4, 5]
    # A priority says nothing of the sequence that its pair is in.
    priorities, flags = episodes.inputs[:, :5, 0], episodes.inputs[:, :5, -1]
    assert abs(torch.corrcoef(torch.stack([priorities.flatten(), flags.flatten()]))[0, 1]) < 0.1


def digits_of_addends(episodes: Episodes) -> tuple[Tensor, Tensor]:
    """The digits of both numbers, [batch, digits] each, of episodes of equal length."""
    length = int(episodes.lengths[0])
    digits = episodes.inputs[:, :length, 0]
    return digits[:, : length // 2 - 1], digits[:, length // 2 : -1]


def longest_runs(flags: Tensor) -> Tensor:
    """The length of the longest run of True in each row."""
    return torch.tensor([max((sum(run) for _, run in groupby(row)), default=0) for row in flags.tolist()])


def test_digits_are_uniform() -> None:
    first, second = digits_of_addends(sample(Add(), 22, 0.0))
    for digits in (first, second, first != second):
        assert ((digits.float().mean(0) - 0.5).abs() < 0.08).all()


def test_hard_additions_carry_far() -> None:
    easy, hard = (digits_of_addends(sample(Add(), 66, fraction)) for fraction in (0.0, 1.0))
    easy_runs, hard_runs = (longest_runs(first != second) for first, second in (easy, hard))
    assert easy_runs.float().mean() < 8
    assert hard_runs.max() >= 31

    # Unequal digits pass a carry on; whether there is one is open until the digit before them.
    first, second = hard
    carried = torch.zeros(len(first), 33)
    for place in range(32):
        carried[:, place + 1] = (first[:, place] + second[:, place] + carried[:, place] >= 2).float()
    far = longest_runs((first != second) & (carried[:, :-1] == 1)) >= 15
    assert 0.2 < far.float().mean() < 0.3  # half of the half that has a chain


def test_ones_are_rare_in_some_hard_additions() -> None:
    easy, hard = (digits_of_addends(sample(Add(), 66, fraction)) for fraction in (0.0, 1.0))
    shares = torch.stack(hard).float().mean(-1).flatten()
    for below in (0.05, 0.15):  # of half of the numbers, from none to half of the digits are ones
        assert (shares < below).float().mean().item() == pytest.approx(below, abs=0.04)
    assert torch.stack(easy).float().mean(-1).min() > 0.1


# Checks.

KEYS, VALUES = "Expected keys from 0 to 31, but got", "Expected values from 0 to 31, but got"


@pytest.mark.parametrize(
    ("name", "instance", "message"),
    [
        ("reverse", 5, "Expected a list of integers, but got int"),
        ("reverse", "12", "Expected a list of integers, but got str"),
        ("reverse", [], "Expected a list of integers, but got an empty one"),
        ("reverse", [1, 1024], "Expected numbers from 0 to 1023, but got 1024 (number 2)"),
        ("reverse", [-1], "Expected numbers from 0 to 1023, but got -1 (number 1)"),
        ("reverse", [1, 2.0], "Expected numbers that are integers, but got float (number 2)"),
        ("reverse", [True], "Expected numbers that are integers, but got bool (number 1)"),
        ("search", [(1, 2)], "Expected a list of (key, value) pairs and a query, but got 1 elements"),
        ("search", {}, "Expected a list of (key, value) pairs and a query, but got dict"),
        ("search", ([], 1), "Expected a list of pairs, but got an empty one"),
        ("search", ([(1, 2), 3], 1), "Expected a (key, value) pair, but got int (pair 2)"),
        ("search", ([(1, 2), (32, 3)], 1), f"{KEYS} 32 (pair 2)"),
        ("search", ([(1, 2), (3, 32)], 1), f"{VALUES} 32 (pair 2)"),
        ("search", ([(4, 2), (3, 3)], 3), "Expected pairs sorted by key, but got key 3 after 4 (pair 2)"),
        ("search", ([(4, 2)], 32), f"{KEYS} 32 (query)"),
        ("search", ([(4, 2)], "4"), "Expected keys that are integers, but got str (query)"),
        ("search", ([(4, 2)], 3), "Expected a query that is one of the keys, but got 3"),
        ("merge", None, "Expected two lists of (priority, value) pairs, but got NoneType"),
        ("merge", ([], [], []), "Expected two lists of (priority, value) pairs, but got 3 elements"),
        ("merge", ([(0.1, 2)], 3), "Expected a list of pairs, but got int (second sequence)"),
        ("merge", ([], []), "Expected at least one pair, but got two empty sequences"),
        (
            "merge",
            ([0.1], []),
            "Expected a (priority, value) pair, but got float (pair 1 of the first sequence)",
        ),
        (
            "merge",
            ([], [("a", 1)]),
            "Expected priorities that are numbers, but got str (pair 1 of the second",
        ),
        (
            "merge",
            ([(True, 1)], []),
            "Expected priorities that are numbers, but got bool (pair 1 of the first",
        ),
        (
            "merge",
            ([(0.1, 1), (1.5, 1)], []),
            "Expected priorities above 0 and up to 1, but got 1.5 (pair 2 of",
        ),
        ("merge", ([(10**400, 1)], []), "Expected priorities above 0 and up to 1, but got 1000"),
        (
            "merge",
            ([(0.0, 1)], []),
            "Expected priorities above 0 and up to 1, but got 0.0 (pair 1 of the first",
        ),
        ("merge", ([(1e-99, 1)], []), "Expected priorities above 0 and up to 1, but got 1e-99 (pair 1 of"),
        (
            "merge",
            ([(float("nan"), 1)], []),
            "Expected priorities above 0 and up to 1, but got nan (pair 1 of",
        ),
        ("merge", ([(0.1, 40)], []), f"{VALUES} 40 (pair 1 of the first sequence)"),
        (
            "merge",
            ([(0.2, 1), (0.1, 1)], []),
            "Expected priorities that ascend, but got 0.1 after 0.2 (pair 2 of",
        ),
        (
            "merge",
            ([(0.2, 1)], [(0.1, 1), (0.2 + 1e-12, 1)]),
            "Expected priorities that differ as 32-bit numbers, but got 0.2 twice "
            "(pair 1 of the first sequence, pair 2 of the second sequence)",
        ),
        ("sort", (), "Expected a list of pairs, but got an empty one"),
        ("sort", [(1, 2), (3, 40)], f"{VALUES} 40 (pair 2)"),
        ("sort", [(1, 2), (-3, 4)], f"{KEYS} -3 (pair 2)"),
        ("sort", [(1, 2, 3)], "Expected a (key, value) pair, but got 3 elements (pair 1)"),
        ("sort", [(1, None)], "Expected values that are integers, but got NoneType (pair 1)"),
        ("add", 5, "Expected two integers, but got int"),
        ("add", (1, 2, 3), "Expected two integers, but got 3 elements"),
        ("add", (1, -2), "Expected numbers of at least 0, but got -2 (second number)"),
        ("add", (False, 2), "Expected numbers that are integers, but got bool (first number)"),
    ],
)
def test_check_says_what_is_wrong(name: str, instance: Any, message: str) -> None:
    with pytest.raises(InstanceError) as raised:
        get_task(name).check(instance)
    assert str(raised.value).startswith(message)
