"""A certificate holds for what the network does, and wrong networks get none."""

import json
import random
from collections import deque

import numpy as np
import pytest
import torch

from lightning_ham import from_pretrained
from lightning_ham.certification import Certificate, ConsolidationOptions, Limits, Refusal, certify, consolidate
from lightning_ham.certification.meanings import ByPriority, InOrder, meanings_of
from lightning_ham.certification.transformations import ACTIVATION_ERROR, Transformations
from lightning_ham.engines.kernels import arithmetic
from lightning_ham.hub import TrainedModel
from lightning_ham.tasks import get_task

NAMES = ["ham-stack", "ham-queue"]


def operations(task, count, generator, most=None):
    """Random valid operations, at most ``most`` elements at a time."""
    size, made = 0, []
    for _ in range(count):
        if size and (size == most or generator.random() < 0.5):
            made.append(("pop",))
            size -= 1
        else:
            made.append(("push", generator.randrange(32)))
            size += 1
    return made


@pytest.mark.parametrize("name", NAMES)
def test_bundled_model_is_certified_anew_in_the_same_words(name):
    model = from_pretrained(name)
    outcome = certify(model)
    assert isinstance(outcome, Certificate)
    assert str(outcome) == str(model.certificate)
    assert outcome.repeats == model.certificate.repeats
    kept = model.certificate.leaves, *model.certificate.levels
    for mine, other in zip((outcome.leaves, *outcome.levels), kept, strict=True):
        assert sorted(mine.tolist()) == sorted(other.tolist())


@pytest.mark.parametrize("engine", ["reference", "auto"])
@pytest.mark.parametrize("name", NAMES)
def test_every_node_that_operations_make_is_in_the_tables(name, engine):
    model = from_pretrained(name)
    certificate = model.certificate
    memory = model.controller.memory
    memory.engine = engine
    size = memory.leaf_size
    tables = [{tuple(row[:size]) for row in table.tolist()} for table in (certificate.leaves, *certificate.levels)]
    period = len(certificate.levels) - certificate.repeats
    generator = random.Random(0)
    depth = 7
    for _ in range(2):
        tree = memory.init_blank(1, 1 << depth)
        with torch.inference_mode():
            for operation in operations(model.task, 120, generator):
                cell = model.task.operation_to_cell(operation).view(1, 1, -1)
                query = memory.embed(cell, torch.ones(1, 1, dtype=torch.bool))[:, 0]
                access = memory.attend(tree, query)
                tree = memory.write(access, query, in_place=True)
        steps = (tree.nodes[0] / memory.grid).long()
        assert torch.equal(steps * memory.grid, tree.nodes[0])
        for row in range(1, 2 << depth):
            height = depth + 1 - row.bit_length()
            while height > len(certificate.levels):
                height -= period
            assert tuple(steps[row].tolist()) in tables[height], (row, height)


@pytest.mark.parametrize("name", NAMES)
def test_certified_model_answers_hard_sequences_in_large_trees(name):
    model = from_pretrained(name)
    pops_last = model.task.pops == "last"
    fills = [("push", value % 32) for value in range(300)]
    sequences = {
        "fill and empty": fills + [("pop",)] * 300,
        "alternate": [("push", 7), ("pop",)] * 300,
        "sawtooth": ([("push", 3)] * 40 + [("pop",)] * 30) * 8,
        "all equal": [("push", 31)] * 250 + [("pop",)] * 250,
        "random": operations(model.task, 600, random.Random(1)),
    }
    for sequence in sequences.values():
        inside, expected = deque(), []
        for operation in sequence:
            if operation == ("pop",):
                expected.append(inside.pop() if pops_last else inside.popleft())
            else:
                inside.append(operation[1])
        assert model.solve([sequence]) == [expected]


def test_meanings_in_order_are_those_of_sequences_of_leaves():
    # Oracle: all sequences of four leaves, split in the middle.
    for spends, pops_last in ((False, True), (True, False)):
        meanings = InOrder(spends_leaves=spends, pops_last=pops_last)
        kinds = ["spent", "taken", "blank"] if spends else ["taken", "freed", "blank"]
        free = {"blank", "freed"}
        for code in range(81):
            leaves = [kinds[code // 3**i % 3] for i in range(4)]
            halves = [leaves[:2], leaves[2:]]
            if any(half != sorted(half, key=kinds.index) for half in halves):
                continue
            left, right = (np.array([sum({meanings.kinds[kind] for kind in half})]) for half in halves)
            (joined,) = meanings.joined(left, right)
            is_sorted = leaves == sorted(leaves, key=kinds.index)
            assert (joined != -1) == is_sorted
            if not is_sorted:
                continue
            assert joined == sum({meanings.kinds[kind] for kind in leaves})
            ((push, pop),) = meanings.branches(left, right)
            where_free = [i for i, kind in enumerate(leaves) if kind in free]
            where_taken = [i for i, kind in enumerate(leaves) if kind == "taken"]
            assert push == (where_free[0] // 2 if where_free else -1)
            assert pop == (where_taken[-1 if pops_last else 0] // 2 if where_taken else -1)


def test_meanings_by_priority_are_the_least_pair_and_free_leaves():
    meanings = ByPriority()
    generator = np.random.default_rng(0)
    for _ in range(300):
        pairs = [int(generator.integers(1024)) if generator.random() < 0.7 else None for _ in range(2)]
        leaves = [meanings.blank if pair is None else int(meanings.pushed(np.array(pair))) for pair in pairs]
        left, right = (np.array([leaf]) for leaf in leaves)
        (joined,) = meanings.joined(left, right)
        taken = [pair for pair in pairs if pair is not None]
        assert joined >> 1 == min(taken, default=1024)
        assert meanings.is_free(int(joined)) == (len(taken) < 2)
        ((push, pop),) = meanings.branches(left, right)
        assert push == (pairs.index(None) if None in pairs else -1)
        equal = pairs[0] == pairs[1]
        assert pop == (-1 if equal or not taken else pairs.index(min(taken)))


def test_structures_tell_which_element_a_pop_takes():
    assert isinstance(meanings_of(get_task("priority_queue")), ByPriority)
    assert meanings_of(get_task("stack")).pops_last
    assert not meanings_of(get_task("queue")).pops_last


def test_activations_err_less_than_the_bound_says():
    x = np.concatenate([np.linspace(-30, 30, 200_001), np.geomspace(1e-6, 80, 5000), -np.geomspace(1e-6, 80, 5000)])
    x = x.astype(np.float32)
    exact_tanh, exact_sigmoid = np.tanh(x.astype(np.float64)), 1 / (1 + np.exp(-x.astype(np.float64)))
    of_kernels = x[None].copy()
    arithmetic.activate(of_kernels, np.ones_like(of_kernels))
    tanh = np.empty_like(x[None])
    arithmetic.tanh_of(x[None], tanh)
    found = [
        (torch.tanh(torch.from_numpy(x)).numpy(), exact_tanh),
        (torch.sigmoid(torch.from_numpy(x)).numpy(), exact_sigmoid),
        (tanh[0], exact_tanh),
        (of_kernels[0], exact_sigmoid),
    ]
    assert max(float(np.abs(got - exact).max()) for got, exact in found) < ACTIVATION_ERROR / 2


@pytest.mark.parametrize("name", NAMES)
def test_float32_stays_within_the_bounds_of_errors(name):
    """Logits and numbers before rounding differ from exact ones by less than the bound, and by a share of it."""
    model = from_pretrained(name)
    controller = model.controller
    exact = Transformations(controller)
    task = model.task
    cells = torch.stack([task.operation_to_cell(("pop",))] + [task.operation_to_cell(("push", i)) for i in range(32)])
    queries = exact.embedded(cells.double().numpy()).steps
    nodes = model.certificate.levels[-1][:, : exact.size]
    logits = exact.searched(nodes, queries)
    grid = controller.memory.grid
    with torch.inference_mode():
        got = controller.memory.search(
            torch.from_numpy(nodes * grid).float().expand(len(queries), -1, -1),
            torch.from_numpy(queries * grid).float(),
        ).T
    worst = float(np.abs(got.double().numpy() - logits).max())
    assert 0 < worst < exact.search_bound()


def widened(name, dimensions, units):
    """A copy of a certified model with more numbers in a node and units in hidden layers, all of them 0 and unused."""
    model = from_pretrained(name)
    options = dict(model.controller_options)
    d, h = options["leaf_size"], options["hidden_size"]
    wide = TrainedModel(model.task_name, "raw_ham", options | {"leaf_size": d + dimensions, "hidden_size": h + units})
    size, target = d + dimensions, wide.state_dict()
    for tensor in target.values():
        tensor.zero_()
    columns = {  # which columns of the wide weight those of the narrow one are
        "memory.join.hidden.weight": [*range(d), *range(size, size + d)],
    }
    parts = {"memory.join.out": 3, "memory.write_leaf.leaf": 2, "memory.write_leaf.query": 2}
    for key, tensor in model.controller.state_dict().items():
        into = target[f"controller.{key}"]
        count = parts.get(key.rpartition(".")[0], 1)
        each, wide_each = len(tensor) // count, len(into) // count
        rows = [part * wide_each + row for part in range(count) for row in range(each)]
        if tensor.dim() == 1:
            into[rows] = tensor
        else:
            into[np.ix_(rows, columns.get(key, range(tensor.shape[1])))] = tensor
    wide.load_state_dict(target)
    wide.controller.memory.grid = model.controller.memory.grid
    return wide, d, h


def part(model, name):
    return model.controller.get_parameter(name).data


STRONG = 30.0


def replace_all(model, first, count):
    """Let JOIN give new values in ``count`` dimensions from ``first`` on."""
    size = model.controller.memory.leaf_size
    part(model, "memory.join.out.bias")[size + first : size + first + count] = STRONG


def test_more_numbers_that_nothing_uses_change_no_answer():
    wide, d, _ = widened("ham-queue", 3, 2)
    replace_all(wide, d, 3)
    outcome = certify(wide)
    assert isinstance(outcome, Certificate)
    assert outcome.num_values == from_pretrained("ham-queue").certificate.num_values


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_fails_only_at_depth_9_is_refused_with_operations_that_fail(name):
    # Nine more numbers are a shift register: number i of a parent is number i - 1 of its left child, the first is 1.
    wide, d, h = widened(name, 9, 9)
    size = wide.controller.memory.leaf_size
    replace_all(wide, d, 9)
    part(wide, "memory.join.hidden.bias")[h] = 1.0
    for i in range(9):
        if i:
            part(wide, "memory.join.hidden.weight")[h + i, d + i - 1] = 1.0
        part(wide, "memory.join.out.weight")[2 * size + d + i, h + i] = STRONG
    part(wide, "memory.search.node.weight")[h, d + 8] = 1.0  # at height 9, all go right
    part(wide, "memory.search.out.weight")[0, h] = 1000.0
    fine = [("push", 5), ("push", 9), ("pop",), ("push", 7), ("pop",), ("pop",)]
    assert wide.solve([fine]) == [wide.task.oracle(fine)]
    outcome = certify(wide)
    assert isinstance(outcome, Refusal)
    assert outcome.height == 9
    assert "at a node of height 9" in outcome.reason
    # In a tree of 512 leaves they go wrong; whatever the model answers to them, its first push goes elsewhere.
    if outcome.instance is not None:
        assert wide.solve([outcome.instance]) != [wide.task.oracle(outcome.instance)]


def test_a_network_that_fails_after_1000_writes_to_one_leaf_is_refused_with_operations_that_fail():
    # Three rings of 7, 11 and 13 numbers, in which every write moves a 1 on: all are home again after 1,001 writes.
    rings = (7, 11, 13)
    wide, d, h = widened("ham-stack", sum(rings), 1)
    size = wide.controller.memory.leaf_size
    replace_all(wide, d, sum(rings))
    first = d
    for ring in rings:
        for i in range(ring):
            part(wide, "memory.write_leaf.leaf.bias")[first + i] = STRONG  # replaced
            part(wide, "memory.write_leaf.leaf.weight")[size + first + i, first + (i - 1) % ring] = STRONG
        part(wide, "memory.embed.blank")[first + 2] = 1.0  # home after 999 writes, the last of which is a push
        part(wide, "head.0.weight")[h, first] = 1.0  # home
        first += ring
    part(wide, "head.0.bias")[h] = -2.0
    part(wide, "head.2.weight")[0, h] = 1000.0  # then the first bit is 1
    fine = [("push", 5), ("pop",)] * 100
    assert wide.solve([fine]) == [wide.task.oracle(fine)]
    outcome = certify(wide)
    assert isinstance(outcome, Refusal)
    assert outcome.height == 0
    assert "a leaf puts out a wrong value after a sequence of writes" in outcome.reason
    assert len(outcome.instance) == 1000
    assert wide.solve([outcome.instance]) != [wide.task.oracle(outcome.instance)]


def test_a_network_that_is_right_with_margins_of_1e_7_is_refused():
    wide, _, h = widened("ham-queue", 0, 1)
    out, bias = part(wide, "memory.search.out.weight"), part(wide, "memory.search.out.bias")
    out *= 2e-8
    bias *= 2e-8
    part(wide, "memory.search.node.bias")[h] = 1.0  # 1 is added and taken away again
    out[0, h] = 1.0
    bias -= 1.0
    outcome = certify(wide)
    assert isinstance(outcome, Refusal)
    assert "without a margin" in outcome.reason


def test_a_network_that_puts_out_a_wrong_value_is_refused_with_two_operations():
    model = from_pretrained("ham-queue")
    part(model, "head.2.bias")[4] = 1e3  # the last bit of every value is 1
    outcome = certify(model)
    assert isinstance(outcome, Refusal)
    assert outcome.num_wrong == 16
    push, pop = outcome.instance
    assert push[0] == "push"
    assert push[1] % 2 == 0
    assert pop == ("pop",)


def test_values_without_end_are_refused_in_time():
    model = from_pretrained("ham-stack")
    model.controller.memory.grid = 2**-16
    outcome = certify(model, Limits(values=500))
    assert isinstance(outcome, Refusal)
    assert "more than 500 values of leaves" in outcome.reason


def test_only_a_data_structure_with_a_grid_can_be_certified():
    with pytest.raises(ValueError, match="Expected a model of a data structure"):
        certify(from_pretrained("ham-reverse"))
    model = from_pretrained("ham-queue")
    model.controller.memory.grid = None
    with pytest.raises(ValueError, match="Expected a memory with a grid"):
        certify(model)


def test_transformations_that_are_not_our_own_are_refused():
    class Sharper(torch.nn.Module):
        def forward(self, left, right):
            return left

    model = from_pretrained("ham-queue")
    model.controller.memory.join = Sharper()
    with pytest.raises(ValueError, match="Sharper"):
        certify(model)


@pytest.mark.slow
def test_training_repairs_a_model_that_was_damaged_until_it_is_certified():
    model = from_pretrained("ham-queue")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.1 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    assert isinstance(certify(model, Limits(values=20_000)), Refusal)
    rounds = []
    outcome = consolidate(model, ConsolidationOptions(rounds=20), rounds.append)
    assert isinstance(outcome, Certificate), outcome
    assert outcome.weights_sha256 == model.weights_sha256()
    assert rounds[0].wrong > 0
    assert rounds[-1].wrong == 0
    assert rounds[-1].is_closed
    sequence = operations(model.task, 200, random.Random(0))
    assert model.solve([sequence]) == [model.task.oracle(sequence)]


def test_options_of_consolidation_are_checked():
    for name, value in {"rounds": -1, "minutes": 0, "grid": 0.3, "updates": 0, "learning_rate": -1.0}.items():
        with pytest.raises(ValueError, match=name):
            ConsolidationOptions(**{name: value})


def test_certificate_is_plain_json():
    certificate = from_pretrained("ham-stack").certificate
    data = json.loads(certificate.to_bytes())
    assert data["format"] == 1
    assert data["leaves"]["shape"] == list(certificate.leaves.shape)
