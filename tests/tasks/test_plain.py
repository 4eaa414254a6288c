"""Instances in any ordered form become Python's own lists and numbers."""

import array
import collections
import itertools
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_ham.tasks import InstanceError, get_task, plain, task_names
from lightning_ham.tasks.plain import plain as as_plain

NUMBERS = [7, 1000, 42]


class Table:
    """As a table of pandas: to iterate over it gives the names of its columns."""

    def __init__(self, *rows):
        self.frame = rows

    def __iter__(self):
        return iter(["key", "value"])

    def itertuples(self, index=True, name="Pandas"):
        assert (index, name) == (False, None)
        return iter(self.frame)


FORMS = [
    NUMBERS,
    np.array(NUMBERS),
    np.array(NUMBERS, dtype=np.uint16),
    np.array(NUMBERS, dtype=np.float16),
    np.array(NUMBERS, dtype=object),
    torch.tensor(NUMBERS),
    torch.tensor([7.0, 1000.0, 42.0], requires_grad=True),
    [np.int64(7), torch.tensor(1000), np.array(42)],
    [np.float64(7), np.float32(1000), torch.tensor(42.0)],
    array.array("i", NUMBERS),
    collections.deque(NUMBERS),
    collections.UserList(NUMBERS),
    (number for number in NUMBERS),
    map(int, ["7", "1000", "42"]),
    dict.fromkeys(NUMBERS).keys(),
    {"a": 7, "b": 1000, "c": 42}.values(),
    types.SimpleNamespace(to_list=lambda: NUMBERS),
    types.SimpleNamespace(to_pylist=lambda: NUMBERS),
]


@pytest.mark.parametrize("form", FORMS, ids=[f"{number}-{type(form).__name__}" for number, form in enumerate(FORMS)])
def test_whatever_holds_numbers_is_a_list_of_integers(form):
    got = as_plain(form)
    assert got == NUMBERS
    assert [type(number) for number in got] == [int] * 3


def test_pairs_of_arrays_and_tables_are_pairs_of_their_types():
    pairs = [[0.5, 7], [1, 30]]
    for form in (
        np.array(pairs),
        torch.tensor(pairs),
        Table((0.5, 7.0), (1.0, 30.0)),
        [np.array(pair) for pair in pairs],
    ):
        got = as_plain(form)
        assert [list(pair) for pair in got] == pairs
        assert [type(value) for _, value in got] == [int, int]
    assert as_plain(zip([0.5, 1.0], [7, 30], strict=True)) == [(0.5, 7), (1.0, 30)]
    assert as_plain({2: 7, 9: 4}.items()) == [(2, 7), (9, 4)]


def test_python_s_own_stays_as_it_is():
    for own in (True, 2.0, 10**400, "push", b"ab", {"a": [1]}, {1, 2}, None, ("push", 7), [("pop",)]):
        assert as_plain(own) == own
        assert type(as_plain(own)) is type(own)


@pytest.mark.parametrize(
    ("form", "type_"),
    [
        (np.bool_(True), bool),
        (torch.tensor(True), bool),
        (np.array([True])[0], bool),
        (np.float32("nan"), float),
        (np.array([1.5])[0], float),
        (np.array([1e30])[0], float),  # a float this large may stand for many integers
        (np.complex64(1), complex),
        (np.str_("push"), str),
    ],
)
def test_a_number_that_is_no_integer_does_not_become_one(form, type_):
    assert type(as_plain(form)) is type_


@pytest.mark.parametrize("form", [torch.tensor([1, 2]).to_sparse(), torch.empty(2, device="meta")])
def test_an_array_that_cannot_be_read_is_told_in_a_sentence(form):
    with pytest.raises(InstanceError, match="Expected numbers that can be read, but got a Tensor: "):
        as_plain(form)


def test_what_has_no_end_is_given_up(monkeypatch):
    monkeypatch.setattr(plain, "MOST_ELEMENTS", 100)
    with pytest.raises(InstanceError, match="Expected at most 100 elements, but got a count with more"):
        as_plain(itertools.count())


def test_what_is_nested_without_end_is_left():
    loop: list = []
    loop.append(loop)
    with pytest.raises(InstanceError):
        get_task("sort").accept(loop)


# By every task.

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.floats(),
    st.sampled_from(["push", "pop", b"x", 10**4000, 2j, object(), int, {"a": 1}, {1}, np.datetime64("2020-01-01")]),
    st.integers(0, 31).map(np.int64),
    st.floats(0, 1).map(np.float32),
    st.integers(0, 31).map(torch.tensor),
    st.sampled_from([range(3), np.zeros((0, 2)), torch.zeros(2, 2), np.array([[9, 4], [2, 7]]), torch.tensor(True)]),
)
ANYTHING = st.recursive(
    ATOMS,
    lambda parts: st.lists(parts, max_size=3).flatmap(
        lambda found: st.sampled_from([found, tuple(found), iter(found), collections.deque(found)])
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("name", task_names())
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=ANYTHING)
def test_whatever_comes_is_an_instance_or_told_in_a_short_line(name, data):
    task, told = get_task(name), []
    for accept in (lambda given: [task.accept(given)], task.accept_all):
        try:
            assert all(task.instance_length(instance) >= 1 for instance in accept(data))
        except InstanceError as error:
            told.append(str(error))
    assert all(0 < len(message) < 300 and "\n" not in message for message in told)


def arrays_of(data):
    """The same with numpy arrays for the innermost lists of numbers, and numpy's numbers elsewhere."""
    if isinstance(data, int):
        return np.int64(data)
    if isinstance(data, list | tuple) and data and all(isinstance(part, int | float) for part in data):
        return np.array(data)
    return [arrays_of(part) for part in data] if isinstance(data, list | tuple) else data


@pytest.mark.parametrize("name", task_names())
def test_every_task_takes_arrays_iterators_and_tensors(name):
    task = get_task(name)
    episodes = task.sample(1, (8, 8), generator=torch.Generator().manual_seed(0))
    instance = task.decode_inputs(episodes.inputs[0], episodes.occupied[0])
    cells = task.instance_to_cells(instance)
    forms = [arrays_of(instance), map(arrays_of, instance)]
    if name in {"reverse", "sort", "add"}:
        forms += [np.array(instance), torch.tensor(instance), torch.tensor(instance, dtype=torch.float64)]
    for form in forms:
        assert torch.equal(task.instance_to_cells(task.accept(form)), cells)
    encoded = task.encode([arrays_of(instance), instance])
    assert torch.equal(encoded.inputs[0], encoded.inputs[1])
    assert torch.equal(encoded.targets[0], episodes.targets[0])
    inputs, _, lengths = task.encode_inputs(iter([instance]))
    assert torch.equal(inputs[0], cells)
    assert lengths.tolist() == [8]


ALONE = {
    "reverse": [7, 1000, 42],
    "sort": [(9, 4), (2, 7)],
    "merge": ([(0.2, 7)], [(0.5, 2)]),
    "search": ([(2, 7), (9, 4)], 9),
    "add": (6, 3),
    "stack": [("push", 7), ("pop",)],
    "queue": [["push", 7], ["pop"]],
    "priority_queue": [("push", 9, 4), ("pop",)],
}


@pytest.mark.parametrize("name", task_names())
def test_one_instance_alone_is_no_list_of_them_and_a_list_is_not_one(name):
    task, alone = get_task(name), ALONE[name]
    forms = [alone, list(alone), iter(alone)] + ([np.array(alone)] if name in {"reverse", "sort", "add"} else [])
    for form in forms:
        with pytest.raises(InstanceError, match=f"^Expected a list of instances of {name}, but got one alone"):
            task.accept_all(form)
    with pytest.raises(
        InstanceError, match=f"^Expected one instance of {name}, but got a list of 2; give one at a time$"
    ):
        task.accept([alone, alone])
    assert task.accept_all([alone]) == [alone]


@pytest.mark.parametrize("wrong", [7, None, "abc", {"a": 1}, {1, 2}, np.int64(7), torch.tensor(7), 7.5, True])
def test_what_is_no_list_at_all_is_told_that_one_is_wanted(wrong):
    with pytest.raises(InstanceError, match=r"^Expected a list of instances of reverse, but got ") as raised:
        get_task("reverse").accept_all(wrong)
    assert type(as_plain(wrong)).__name__ in str(raised.value)


def test_a_list_of_wrong_numbers_is_told_both():
    message = "^Expected a list of integers, but got int; a list of instances is wanted, so write "
    with pytest.raises(InstanceError, match=message):
        get_task("reverse").accept_all([7, 5000])


@pytest.mark.parametrize(
    ("name", "instance", "message"),
    [
        ("reverse", np.array([True]), "Expected numbers that are integers, but got bool (number 1)"),
        ("reverse", [7, float("nan")], "Expected numbers that are integers, but got nan (number 2)"),
        ("reverse", torch.tensor([1, 1.5]), "Expected numbers that are integers, but got float (number 2)"),
        ("reverse", np.array(["7"]), "Expected numbers that are integers, but got str (number 1)"),
        ("reverse", {1, 2}, "Expected a list of integers, but got set"),
        ("sort", np.array([[1, 2, 3]]), "Expected a (key, value) pair, but got 3 elements (pair 1)"),
        ("merge", (np.array([[np.nan, 1]]), []), "Expected priorities above 0 and up to 1, but got nan (pair 1 of"),
        ("merge", ([(np.bool_(True), 1)], []), "Expected priorities that are numbers, but got bool (pair 1 of"),
        ("merge", ([(0.5, np.nan)], []), "Expected values that are integers, but got nan (pair 1 of"),
        ("add", (-(10**5000), 1), "Expected numbers of at least 0, but got a number of 16,610 bits (first number)"),
        (
            "stack",
            [("push", 10**5000, 1)],
            "Expected ('pop',) or ('push', value), but got ('push', a number of 16,610 bits, 1) (operation 1)",
        ),
        ("stack", [("pop" * 99,)], "Expected ('pop',) or ('push', value), but got ('poppop"),
    ],
)
def test_what_a_task_cannot_take_is_told_in_a_short_sentence(name, instance, message):
    with pytest.raises(InstanceError) as raised:
        get_task(name).accept(instance)
    assert str(raised.value).startswith(message)
    assert len(str(raised.value)) < 200
