"""Memories whose nodes are rounded to a grid: what is rounded and how, the gradient, all engines, files, sessions."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ham.controllers import LSTMHAM
from lightning_ham.engines import unroll
from lightning_ham.hub import from_pretrained
from lightning_ham.memory import HierarchicalAttentiveMemory, Tree
from lightning_ham.memory.transforms import on_grid
from lightning_ham.training import HAMModule

GRID = 0.25


def make(join: str = "gated", engine: str = "auto", reals: int = 0, grid: float | None = GRID, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        memory = HierarchicalAttentiveMemory(4, 10, 10, 12, join, reals, grid, engine).to(dtype)
    with torch.no_grad():  # so that nodes are far apart
        for parameter in memory.parameters():
            parameter *= 2
    return memory


def cells(batch: int = 5, count: int = 8, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(batch, count, 4, generator=generator).to(dtype)
    return inputs, torch.rand(batch, count, generator=generator) < 0.8


def test_numbers_are_rounded_as_numpy_rounds_them_and_the_gradient_goes_straight_through():
    numbers = torch.tensor([[-1.0, -0.375, -0.126, 0.0, 0.125, 0.3749, 0.375, 0.9]], requires_grad=True)
    rounded = on_grid(numbers, GRID)
    assert torch.equal(rounded.detach(), torch.from_numpy(np.rint(numbers.detach().numpy() * 4) / 4))
    weights = torch.arange(8.0)
    (rounded * weights).sum().backward()
    assert torch.equal(numbers.grad, weights.unsqueeze(0))


def test_without_a_grid_nothing_is_touched():
    numbers = torch.rand(3, 4)
    assert on_grid(numbers, None) is numbers


@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
@pytest.mark.parametrize("reals", [0, 1])
def test_every_node_is_on_the_grid_but_its_reals_are_as_they_were(join, reals):
    memory, finer = make(join, reals=reals), make(join, reals=reals, grid=None)
    inputs, occupied = cells()
    tree, smooth = memory.init(inputs, occupied), finer.init(inputs, occupied)
    query = torch.randn(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        written = memory.write(memory.attend(tree, query), query)
    for nodes in (tree.nodes, written.nodes, memory.init_blank(2, 8).nodes):
        steps = nodes[..., 2 * reals :] / GRID
        assert torch.equal(steps, steps.round())
    assert torch.equal(tree.nodes[..., : 2 * reals], smooth.nodes[..., : 2 * reals])
    assert not torch.allclose(tree.leaves, smooth.leaves)


def test_noise_on_cells_is_added_before_they_are_rounded():
    memory = make().train()
    inputs, occupied = cells()
    quiet = memory.embed_cells(inputs, occupied)
    memory.cell_noise = 1.0
    noisy = memory.embed_cells(inputs, occupied, torch.Generator().manual_seed(3))
    assert not torch.equal(noisy, quiet)
    assert torch.equal(noisy / GRID, (noisy / GRID).round())


def results(join, attention, engine, reals, grid, with_cell):
    """What an episode puts out, and the gradients of all that it comes from, by name."""
    memory = make(join, engine, reals, grid)
    inputs, occupied = cells()
    with torch.random.fork_rng():
        torch.manual_seed(4)
        cell = nn.LSTMCell(10, 10).double()
        queries = torch.randn(5, 6, 10, dtype=torch.float64).requires_grad_()
    source = cell if with_cell else queries
    generator = torch.Generator().manual_seed(5)
    episode = unroll(memory, source, memory.embed_cells(inputs, occupied), 6, attention, generator)
    loss = episode.hidden.sin().sum() + episode.reads.cos().sum() + 0.1 * (episode.entropies + episode.log_probs).sum()
    loss.backward()
    leaves = dict(memory.named_parameters()) | (dict(cell.named_parameters()) if with_cell else {"queries": queries})
    zero = torch.zeros(())
    gradients = {name: zero if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
    return {**episode._asdict(), **{name: grad for name, grad in gradients.items() if grad.any()}}


@pytest.mark.numerical
@pytest.mark.parametrize("with_cell", [True, False])
@pytest.mark.parametrize("reals", [0, 1])
@pytest.mark.parametrize("attention", ["argmax", "reinforce", "straight_through", "straight_through_write"])
@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
def test_every_engine_is_the_reference(join, attention, reals, with_cell):
    expected = results(join, attention, "reference", reals, GRID, with_cell)
    assert not torch.allclose(expected["reads"], results(join, attention, "reference", reals, None, with_cell)["reads"])
    for engine in ("sparse", "fused"):
        got = results(join, attention, engine, reals, GRID, with_cell)
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-9, msg=f"{engine}, {name}")


@pytest.mark.numerical
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
def test_a_compiled_access_is_that_of_the_reference_and_notices_another_grid(join, dtype):
    query = torch.randn(5, 10, dtype=dtype, generator=torch.Generator().manual_seed(2))
    compiled, plain = make(join, "fused", dtype=dtype), make(join, "reference", dtype=dtype)
    inputs, occupied = cells(dtype=dtype)
    for grid in (GRID, 0.5, None):
        compiled.grid = plain.grid = grid
        with torch.no_grad():
            tree = plain.init(inputs, occupied)
            written = [
                memory.write(memory.attend(Tree(tree.nodes.clone()), query), query, in_place=True).nodes
                for memory in (compiled, plain)
            ]
        torch.testing.assert_close(*written)
        assert not torch.equal(written[1], tree.nodes)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (0.3, "Expected argument `grid` to be 1 or a half of it, a quarter, and so on, but got 0.3."),
        (0, "Expected argument `grid` to be between 9.53674e-07 and 1, but got 0."),
        (2, "Expected argument `grid` to be between 9.53674e-07 and 1, but got 2."),
        (float("nan"), "Expected argument `grid` to be a finite number, but got nan."),
        ("fine", "Expected argument `grid` to be a number, but got 'fine'."),
    ],
)
def test_what_is_no_grid_is_refused(grid, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        HierarchicalAttentiveMemory(2, 3, grid=grid)
    memory = HierarchicalAttentiveMemory(2, 3)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        memory.grid = grid
    assert memory.grid is None


def test_a_model_with_a_grid_comes_back_with_it(tmp_path: Path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = HAMModule("reverse", controller_options={"grid": GRID, "leaf_size": 8})
    module.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model/config.json").read_text())["controller_options"]["grid"] == GRID
    loaded = from_pretrained(tmp_path / "model")
    assert loaded.controller.memory.grid == GRID
    instance = [3, 1, 2]
    assert loaded.solve([instance]) == module.model.solve([instance])


def test_a_model_saved_before_there_were_grids_has_none(tmp_path: Path):
    HAMModule("reverse", controller_options={"leaf_size": 8}).save_pretrained(tmp_path / "model")
    config = tmp_path / "model/config.json"
    content = json.loads(config.read_text())
    del content["controller_options"]["grid"]
    config.write_text(json.dumps(content))
    assert from_pretrained(tmp_path / "model").controller.memory.grid is None


def test_a_grid_set_upon_a_trained_model_is_saved_with_it(tmp_path: Path):
    module = HAMModule("reverse", controller_options={"leaf_size": 8})
    module.model.controller.memory.grid = GRID
    module.save_pretrained(tmp_path / "model")
    assert from_pretrained(tmp_path / "model").controller.memory.grid == GRID


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("seed", range(5))
def test_an_open_structure_with_a_grid_does_what_solving_does(engine, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = HAMModule("queue", "raw_ham", {"grid": 1, "leaf_size": 24, "hidden_size": 64}).model.eval()
        with torch.no_grad():
            for parameter in model.parameters():  # so that nodes are far apart
                parameter *= 2
        numbers = torch.randint(32, (8,)).tolist()
    model.controller.memory.engine = engine
    operations = [*(("push", number) for number in numbers), *[("pop",)] * 8]
    structure = model.open(capacity=16)
    for number in numbers:
        structure.push(number)
    assert [[structure.pop() for _ in numbers]] == model.solve([operations])


@pytest.mark.parametrize("part", ["join", "write_leaf"])
def test_parts_with_a_grid_of_their_own_are_run_as_they_are(part):
    query = torch.randn(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    inputs, occupied = cells()
    written = []
    for engine in ("fused", "reference"):
        memory = make(engine=engine, grid=None)
        with torch.no_grad():
            tree = memory.init(inputs, occupied)
            memory.write(memory.attend(Tree(tree.nodes.clone()), query), query)  # prepares compiled loops
            getattr(memory, part).grid = GRID
            memory.engine = "auto" if engine == "fused" else engine
            tree = Tree(tree.nodes.clone())
            written.append(memory.write(memory.attend(tree, query), query, in_place=True).nodes)
    torch.testing.assert_close(*written)


def test_a_training_with_a_grid_learns():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        controller = LSTMHAM(4, 2, 8, 8, grid=GRID)
        optimizer = torch.optim.Adam(controller.parameters(), 0.01)
        inputs, occupied = cells(64, 2, torch.float32)
        targets = (inputs[:, :1, :2] > 0.5).float()
        losses = []
        for _ in range(150):
            outputs = controller(inputs, occupied | True, 1, "straight_through").outputs
            loss = nn.functional.binary_cross_entropy_with_logits(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
