"""What does not fit a memory is told by the memory, in one sentence, before anything is computed."""

import re

import pytest
import torch

from lightning_ham.controllers import LSTMHAM
from lightning_ham.memory import HierarchicalAttentiveMemory, Tree

INPUT, QUERY, LEAF = 10, 7, 5
FLOAT, DOUBLE = torch.float32, torch.float64


@pytest.fixture(params=["reference", "auto", "fused"])
def memory(request) -> HierarchicalAttentiveMemory:
    torch.manual_seed(0)
    return HierarchicalAttentiveMemory(INPUT, QUERY, LEAF, engine=request.param).requires_grad_(False)


def wrong(name: str, shape: str, dtype: torch.dtype, got: str) -> str:
    return f"Expected argument `{name}` of shape [{shape}] and dtype {dtype}, but got {got}."


def shape(*sizes: int, dtype: torch.dtype = FLOAT) -> str:
    return f"shape {list(sizes)} and dtype {dtype}"


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        (torch.zeros(2, 4, INPUT + 1), shape(2, 4, INPUT + 1)),
        (torch.zeros(2, 4, INPUT - 1), shape(2, 4, INPUT - 1)),
        (torch.zeros(4, INPUT), shape(4, INPUT)),
        (torch.zeros(2, 3, 4, INPUT), shape(2, 3, 4, INPUT)),
        (torch.zeros(()), shape()),
        (torch.zeros(2, 4, INPUT, dtype=DOUBLE), shape(2, 4, INPUT, dtype=DOUBLE)),
        (torch.zeros(2, 4, INPUT, dtype=torch.int64), shape(2, 4, INPUT, dtype=torch.int64)),
        (torch.zeros(2, 4, INPUT, dtype=torch.bool), shape(2, 4, INPUT, dtype=torch.bool)),
        ([[0.0] * INPUT] * 4, "a list, not a tensor"),
        (None, "a NoneType, not a tensor"),
    ],
    ids=str,
)
def test_cells(memory, inputs, got):
    with pytest.raises(ValueError, match=f"^{re.escape(wrong('inputs', f'batch, num_leaves, {INPUT}', FLOAT, got))}$"):
        memory.init(inputs)
    occupied = torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=re.escape(wrong("inputs", f"batch, cells, {INPUT}", FLOAT, got))):
        memory.embed_cells(inputs, occupied)


@pytest.mark.parametrize(
    ("occupied", "got"),
    [
        (torch.ones(2, 3, dtype=torch.bool), shape(2, 3, dtype=torch.bool)),
        (torch.ones(4, dtype=torch.bool), shape(4, dtype=torch.bool)),
        (torch.ones(2, 4), shape(2, 4)),
        (torch.ones(2, 4, dtype=torch.int64), shape(2, 4, dtype=torch.int64)),
        ([True] * 4, "a list, not a tensor"),
    ],
    ids=str,
)
def test_which_cells_are_occupied(memory, occupied, got):
    for method in (memory.init, memory.embed_cells):
        with pytest.raises(ValueError, match=re.escape(wrong("occupied", "2, 4", torch.bool, got))):
            method(torch.zeros(2, 4, INPUT), occupied)


@pytest.mark.parametrize("num_leaves", [0, 3, 6])
def test_leaves(memory, num_leaves):
    message = f"^Expected the number of leaves to be a power of two, but got {num_leaves}.$"
    with pytest.raises(ValueError, match=message):
        memory.init(torch.zeros(2, num_leaves, INPUT))
    with pytest.raises(ValueError, match=message):
        memory.init_blank(2, num_leaves)
    with pytest.raises(ValueError, match=message):
        memory.attend(Tree(torch.zeros(2, 2 * num_leaves, LEAF)), torch.zeros(2, QUERY))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 4.0), "Expected argument `num_leaves` to be a whole number, but got 4.0."),
        ((2, True), "Expected argument `num_leaves` to be a whole number, but got True."),
        (("2", 4), "Expected argument `batch` to be a whole number, but got '2'."),
        ((-1, 4), "Expected argument `batch` to be at least 0, but got -1."),
        ((2, -4), "Expected the number of leaves to be a power of two, but got -4."),
    ],
)
def test_blank_trees(memory, arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        memory.init_blank(*arguments)


VECTORS = [
    (lambda size: torch.zeros(2, size + 1), lambda size: shape(2, size + 1)),
    (lambda size: torch.zeros(2, size - 1), lambda size: shape(2, size - 1)),
    (lambda size: torch.zeros(size), lambda size: shape(size)),
    (lambda size: torch.zeros(2, 1, size), lambda size: shape(2, 1, size)),
    (lambda size: torch.zeros(2, size, dtype=DOUBLE), lambda size: shape(2, size, dtype=DOUBLE)),
    (lambda size: torch.zeros(2, size, dtype=torch.int32), lambda size: shape(2, size, dtype=torch.int32)),
    (lambda size: [0.0] * size, lambda _: "a list, not a tensor"),
]


@pytest.mark.parametrize("leaves", [4, 1024])  # below and above the size from which `auto` uses compiled loops
@pytest.mark.parametrize(("make", "got"), VECTORS, ids=range(len(VECTORS)))
def test_queries_and_leaves(memory, leaves, make, got):
    access = memory.attend(memory.init_blank(2, leaves), torch.zeros(2, QUERY))
    message = f"^{re.escape(wrong('query', f'batch, {QUERY}', FLOAT, got(QUERY)))}$"
    for attention in ("argmax", "reinforce", "straight_through", "straight_through_write", "soft"):
        with pytest.raises(ValueError, match=message):
            memory.attend(access.tree, make(QUERY), attention)
    for in_place in (False, True):
        with pytest.raises(ValueError, match=message):
            memory.write(access, make(QUERY), in_place=in_place)
        with pytest.raises(ValueError, match=re.escape(wrong("leaf", f"batch, {LEAF}", FLOAT, got(LEAF)))):
            memory.put(access, make(LEAF), in_place=in_place)


def test_more_queries_than_trees(memory):
    access = memory.attend(memory.init_blank(2, 4), torch.zeros(2, QUERY))
    message = re.escape(wrong("query", f"2, {QUERY}", FLOAT, shape(3, QUERY)))
    for function, argument in ((memory.attend, access.tree), (memory.write, access)):
        with pytest.raises(ValueError, match=message):
            function(argument, torch.zeros(3, QUERY))


def test_another_memorys_tree_and_what_is_none(memory):
    other = HierarchicalAttentiveMemory(INPUT, QUERY, LEAF + 1).init_blank(2, 4)
    message = wrong("tree.nodes", f"batch, 2 * num_leaves, {LEAF}", FLOAT, shape(2, 8, LEAF + 1))
    with pytest.raises(ValueError, match=re.escape(message)):
        memory.attend(other, torch.zeros(2, QUERY))
    tree, query = memory.init_blank(2, 4), torch.zeros(2, QUERY)
    with pytest.raises(TypeError, match="Expected argument `tree` to be what init returns, but got a Tensor"):
        memory.attend(tree.nodes, query)
    with pytest.raises(TypeError, match="Expected argument `access` to be what attend returns, but got a Tree"):
        memory.write(tree, query)
    with pytest.raises(TypeError, match="Expected argument `access` to be what attend returns, but got a Tree"):
        memory.put(tree, torch.zeros(2, LEAF))


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), wrong("guide", "2", torch.int64, shape(3, dtype=torch.int64))),
        (torch.zeros(2), wrong("guide", "2", torch.int64, shape(2))),
        (torch.tensor([0, 4]), "Expected argument `guide` from 0 to 3, but got 0 to 4."),
        (torch.tensor([-1, 3]), "Expected argument `guide` from 0 to 3, but got -1 to 3."),
    ],
    ids=str,
)
def test_guides(memory, guide, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        memory.attend(memory.init_blank(2, 4), torch.zeros(2, QUERY), guide=guide)


def test_another_precision_is_the_memorys_or_that_of_autocast(memory):
    double = memory.double()
    tree = double.init(torch.zeros(2, 4, INPUT, dtype=DOUBLE))
    double.write(double.attend(tree, torch.zeros(2, QUERY, dtype=DOUBLE)), torch.zeros(2, QUERY, dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"dtype torch\.float64, but got shape"):
        double.init(torch.zeros(2, 4, INPUT))
    single = memory.float()
    single.engine = "auto"
    with torch.autocast("cpu", torch.bfloat16):
        tree = single.init(torch.zeros(2, 4, INPUT, dtype=torch.bfloat16))
        assert single.attend(tree, torch.zeros(2, QUERY, dtype=torch.bfloat16)).read.shape == (2, LEAF)


def test_what_pytorch_would_have_raised_is_raised_still(memory):
    with pytest.raises(RuntimeError, match="Expected argument `query`"):
        memory.attend(memory.init_blank(2, 4), torch.zeros(2, QUERY + 1))


def test_a_controllers_cells():
    controller = LSTMHAM(INPUT, 3, controller_size=QUERY, leaf_size=LEAF)
    message = wrong("inputs", f"batch, cells, {INPUT}", FLOAT, shape(2, 4, INPUT + 1))
    with pytest.raises(ValueError, match=re.escape(message)):
        controller(torch.zeros(2, 4, INPUT + 1), torch.ones(2, 4, dtype=torch.bool), 4)
