"""Data structures played by a network: what holds with any weights, and with a network that is right by design."""

import copy
import pickle
import random
from collections import deque

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_ham import from_pretrained
from lightning_ham.engines.session import perceptron
from lightning_ham.models import TaskModel, online
from lightning_ham.tasks import InstanceError

SMALL = {"leaf_size": 8}


def test_len_and_errors() -> None:
    structure = TaskModel("queue", "raw_ham", SMALL).open(capacity=3)
    assert len(structure) == 0
    with pytest.raises(IndexError, match=r"Expected an element to pop, but the queue is empty\."):
        structure.pop()
    for value in (1, 2, 3):
        structure.push(value)
    assert len(structure) == 3
    with pytest.raises(OverflowError, match="Expected fewer than 3 elements before a push, but the queue is full"):
        structure.push(4)
    assert len(structure) == 3
    assert 0 <= structure.pop() < 32
    assert len(structure) == 2


def test_what_is_pushed_is_checked_first() -> None:
    structure = TaskModel("priority_queue", "raw_ham", SMALL).open(capacity=1)
    for operands in ((), (1,), (1, 2, 3), (32, 0), (0, 32), (0, True), ("1", 2)):
        with pytest.raises(InstanceError):
            structure.push(*operands)
    assert len(structure) == 0
    structure.push(31, 31)
    assert len(structure) == 1


@pytest.mark.parametrize("value", [np.int64(5), np.uint8(5), torch.tensor(5), np.array(5), np.float32(5)])
def test_numbers_of_other_kinds_are_pushed_like_pythons_own(value) -> None:
    torch.manual_seed(0)
    model = TaskModel("queue", "raw_ham", SMALL)
    pushed, expected = model.open(np.int64(2)), model.open(2)
    pushed.push(value)
    expected.push(5)
    nodes, like = (structure._network._session._nodes for structure in (pushed, expected))
    assert np.array_equal(nodes, like)
    assert pushed.pop() == expected.pop()


@pytest.mark.parametrize(
    ("operands", "message"),
    [
        ((), r"Expected push\(value\), but got 0 arguments"),
        ((9, 4), r"Expected push\(value\), but got 2 arguments"),
        (([5],), "Expected values that are integers, but got list"),
        ((torch.tensor([5, 6]),), "Expected values that are integers, but got list"),
        ((np.bool_(True),), "Expected values that are integers, but got bool"),
        ((float("nan"),), "Expected values that are integers, but got nan"),
        ((5.0,), "Expected values that are integers, but got float"),
        ((np.int64(32),), "Expected values from 0 to 31, but got 32"),
    ],
)
def test_what_cannot_be_pushed_is_told_in_a_sentence(operands, message) -> None:
    structure = TaskModel("stack", "raw_ham", SMALL).open(4)
    with pytest.raises(InstanceError, match=f"^{message}$"):
        structure.push(*operands)


@pytest.mark.parametrize("capacity", [2.5, "8", True, [4]])
def test_a_capacity_is_a_whole_number(capacity) -> None:
    with pytest.raises(TypeError, match="Expected a capacity that is a whole number, but got "):
        TaskModel("stack", "raw_ham", SMALL).open(capacity)


def test_what_cannot_be_opened() -> None:
    with pytest.raises(ValueError, match="Expected a capacity of at least 1, but got 0"):
        TaskModel("stack", "raw_ham", SMALL).open(0)
    for task, controller in (("sort", "lstm_ham"), ("stack", "lstm_ham")):
        with pytest.raises(ValueError, match=f"but got one of '{task}' with 'lstm_ham'"):
            TaskModel(task, controller, SMALL).open(4)


@pytest.mark.parametrize("task", ["stack", "queue", "priority_queue"])
def test_it_is_the_model_one_operation_at_a_time(task: str) -> None:
    torch.manual_seed(0)
    model = TaskModel(task, "raw_ham", SMALL)
    operands = [(i,) if task != "priority_queue" else (31 - i, i) for i in range(4)]
    operations = [("push", *operands[0]), ("push", *operands[1]), ("pop",), ("push", *operands[2]), ("pop",), ("pop",)]
    structure = model.open(4)  # a tree of 8 leaves, as solve takes for 6 operations
    popped = [structure.pop() if name == "pop" else structure.push(*rest) for name, *rest in operations]
    assert [value for value in popped if value is not None] == model.solve([operations])[0]


def by_hand(task: str) -> TaskModel:
    """A stack or a queue of known behaviour: leaves are used from left to right, and never again.

    Of a node's numbers, 0 says that something has been written in every leaf below, 1 that something is there to be
    popped, 2 that a push goes right, 3 that a pop goes right. A leaf's first two are the same; its values come after.
    """
    model = TaskModel(task, "raw_ham", {"leaf_size": 9})
    memory, states = model.controller.memory, model.controller.state_bits
    pops_right_first = task == "stack"

    def join(left: Tensor, right: Tensor) -> Tensor:
        node = torch.zeros_like(left)
        node[..., 0] = right[..., 0]
        node[..., 1] = torch.maximum(left[..., 1], right[..., 1])
        node[..., 2] = left[..., 0]
        node[..., 3] = right[..., 1] if pops_right_first else 1 - left[..., 1]
        return node

    def search(nodes: Tensor, query: Tensor) -> Tensor:
        is_pop = query[:, 3:4]
        return torch.where(is_pop > 0, nodes[..., 3], nodes[..., 2]) - 0.5

    def write(leaves: Tensor, query: Tensor) -> Tensor:
        new = leaves.clone()
        is_pop = query[:, 3] > 0
        new[:, 0] = 1
        new[:, 1] = (~is_pop).float()
        new[~is_pop, 4:] = query[~is_pop, 4:]
        return new

    def embed(inputs: Tensor, occupied: Tensor) -> Tensor:
        return torch.cat((torch.zeros(*inputs.shape[:2], 3), inputs), dim=2)

    for name, function in (("join", join), ("search", search), ("write_leaf", write)):
        setattr(memory, name, _Function(function))
    embedding = _Function(embed)
    embedding.blank = torch.nn.Parameter(torch.zeros(9))
    memory.embed = embedding
    model.controller.head = _Function(lambda read: torch.nn.functional.pad(read[..., 4:] - 0.5, (0, states)))
    return model


class _Function(torch.nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.function(*arguments)


@pytest.mark.parametrize("task", ["stack", "queue"])
def test_it_goes_on_for_ever_with_a_network_that_never_uses_a_leaf_again(task: str) -> None:
    model = by_hand(task)
    operations = [("push", 7), ("push", 30), ("pop",), ("push", 2), ("pop",), ("pop",)]
    assert model.solve([operations]) == [model.task.oracle(operations)]

    structure, inside, draw = model.open(capacity=5), deque[int](), random.Random(0)
    for _ in range(500):
        if inside and (len(inside) == 5 or draw.random() < 0.45):
            assert structure.pop() == (inside.pop() if task == "stack" else inside.popleft())
        else:
            inside.append(draw.randrange(32))
            structure.push(inside[-1])
        assert len(structure) == len(inside)


# In compiled loops.


class OperationsOfTorch(TorchDispatchMode):
    """Takes down what PyTorch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


PRODUCTS = {"aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::addmv", "aten::linear"}
"""What PyTorch divides among its threads, however small it is."""


def play(model: TaskModel, capacity: int, steps: int) -> list[int]:
    """What comes out in a game of pushes and pops; large capacities are nearly filled first."""
    structure, draw, popped = model.open(capacity), random.Random(0), []
    for step in range(steps):
        if len(structure) and (len(structure) == capacity or draw.random() < (0.2 if step < capacity else 0.5)):
            popped.append(structure.pop())
        else:
            structure.push(*(draw.randrange(32) for _ in model.task.operands))
    return popped


@pytest.mark.parametrize("capacity", [1, 5, 64])
@pytest.mark.parametrize("name", ["ham-stack", "ham-queue", "ham-priority-queue"])
def test_compiled_loops_answer_as_plain_pytorch_does(name: str, capacity: int) -> None:
    model = from_pretrained(name)
    model.controller.memory.engine = "reference"
    expected = play(model, capacity, 300)
    model.controller.memory.engine = "auto"
    assert play(model, capacity, 300) == expected


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
def test_compiled_loops_are_plain_pytorch_with_any_weights(dtype: torch.dtype, tolerance: float, join: str) -> None:
    torch.manual_seed(1)
    model = TaskModel("priority_queue", "raw_ham", {"leaf_size": 7, "hidden_size": 9, "join": join}).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3
    model.controller.memory.engine = "sparse"
    compiled, plain = (kind(model.controller, 8) for kind in (online._Compiled, online._Plain))
    draw, reads = random.Random(0), []
    for step in range(40):
        cell = model.task.operation_to_cell(("push", draw.randrange(32), draw.randrange(32)))
        queries = compiled.embed(cell), plain.embed(cell)
        if step % 10 == 9:
            compiled.put(queries[0], reads[step // 2].numpy())
            plain.put(queries[1], reads[step // 2].unsqueeze(0))
        if step == 25:
            compiled.clear(8)
            plain.clear(8)
        got, expected = torch.from_numpy(compiled.access(queries[0])), plain.access(queries[1])[0]
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
        assert compiled.bits(got.numpy()) == plain.bits(expected.unsqueeze(0))
        reads.append(got)
    assert len(set(map(str, reads))) > 20


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda structure: pickle.loads(pickle.dumps(structure))])
def test_a_copy_goes_on_by_itself(duplicate) -> None:
    structure = from_pretrained("ham-queue").open(8)
    for value in range(5):
        structure.push(value)
    twin = duplicate(structure)
    assert [structure.pop() for _ in range(3)] == [0, 1, 2]
    twin.push(30)
    assert [twin.pop() for _ in range(6)] == [0, 1, 2, 3, 4, 30]
    assert [structure.pop() for _ in range(2)] == [3, 4]


def test_no_more_is_kept_than_was_said(monkeypatch) -> None:
    monkeypatch.setattr(online, "MOST_KEPT", 3)
    structure = from_pretrained("ham-priority-queue").open(8)
    for value in range(8):
        structure.push(value, 31 - value)
    assert [structure.pop() for _ in range(8)] == [31 - value for value in range(8)]
    assert (len(structure._queries), len(structure._values)) == (3, 3)


@pytest.mark.parametrize("name", ["ham-queue", "ham-priority-queue"])
def test_no_operation_is_divided_among_pytorchs_threads(name: str) -> None:
    model = from_pretrained(name)
    structure = model.open(128)
    threads = torch.get_num_threads()
    element = [3] * len(model.task.operands)
    with OperationsOfTorch() as first:
        for _ in range(300):  # so that there are moves to a fresh tree among them
            structure.push(*element)
            structure.pop()
    assert not first.names & PRODUCTS
    with OperationsOfTorch() as later:
        for _ in range(300):
            structure.push(*element)
            structure.pop()
    assert not later.names
    assert torch.get_num_threads() == threads


def test_the_count_of_operations_sees_what_plain_pytorch_does() -> None:
    model = from_pretrained("ham-queue")
    model.controller.memory.engine = "sparse"
    structure = model.open(4)
    with OperationsOfTorch() as operations:
        structure.push(3)
    assert operations.names & PRODUCTS


@pytest.mark.parametrize("part", ["join", "search", "write_leaf", "embed", "head"])
def test_modules_that_compiled_loops_do_not_know_are_called(part: str) -> None:
    model = TaskModel("queue", "raw_ham", SMALL)
    module = model.controller.head if part == "head" else getattr(model.controller.memory, part)
    calls = []
    module.register_forward_hook(lambda *_: calls.append(None))
    structure = model.open(4)
    before = len(calls)  # trees of blanks are joined
    structure.push(3)
    structure.pop()
    assert len(calls) > before


def test_a_memory_that_puts_otherwise_is_asked(monkeypatch) -> None:
    model = TaskModel("queue", "raw_ham", SMALL)
    memory = model.controller.memory
    put, calls = memory.put, []
    memory.put = lambda *arguments, **options: calls.append(None) or put(*arguments, **options)
    structure = model.open(1)
    for _ in range(3):
        structure.push(3)
        structure.pop()
    structure.push(3)
    assert calls


def test_layers_and_inputs_that_do_not_fit_are_refused() -> None:
    linear, relu = torch.nn.Linear, torch.nn.ReLU()
    with pytest.raises(ValueError, match="Expected an output layer of 4 inputs, but got 5"):
        perceptron(torch.nn.Sequential(linear(3, 4), relu, linear(5, 2)))
    layers = torch.nn.Sequential(linear(3, 4, bias=False), relu, linear(4, 2))
    x = torch.randn(3)
    got = perceptron(layers)(x.numpy())
    torch.testing.assert_close(torch.from_numpy(got), layers(x).detach())
    with pytest.raises(ValueError, match=r"Expected an input of 3 numbers, but got one of \[4\]"):
        perceptron(layers)(torch.randn(4).numpy())
