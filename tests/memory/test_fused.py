"""Single accesses in compiled loops against the plain ones."""

import contextlib
import gc
import weakref
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lightning_ham.engines import single, unroll
from lightning_ham.memory import HierarchicalAttentiveMemory, Tree
from lightning_ham.memory.attention.argmax import Argmax
from lightning_ham.memory.transforms import Search, Write


def access_and_write(memory, tree, query, mode, engine):
    memory.engine = engine
    tree = Tree(tree.nodes.clone())
    with torch.no_grad():
        access = memory.attend(tree, query, mode, torch.Generator().manual_seed(1))
        return access, memory.write(access, query.flip(1), in_place=True).nodes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60, deadline=None)
@given(
    leaves=st.integers(0, 6),
    batch=st.integers(1, 5),
    leaf_size=st.integers(1, 9),
    hidden_size=st.integers(1, 9),
    query_size=st.integers(1, 9),
    join=st.sampled_from(["gated", "choice", "mlp"]),
    mode=st.sampled_from(["argmax", "reinforce"]),
    seed=st.integers(0, 2**32),
)
def test_an_access_is_that_of_the_reference(dtype, leaves, batch, leaf_size, hidden_size, query_size, join, mode, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        memory = HierarchicalAttentiveMemory(3, query_size, leaf_size, hidden_size, join).to(dtype)
        tree = memory.init(torch.randn(batch, 2**leaves, 3).to(dtype))
        query = torch.randn(batch, query_size).to(dtype)
    expected, written = access_and_write(memory, tree, query, mode, "reference")
    with mock.patch.object(single, "attend", side_effect=single.attend) as attend:
        got, nodes = access_and_write(memory, tree, query, mode, "fused")
    assert attend.called
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for part in ("leaf", "read", "logits", "path", "siblings", "weights", "log_prob", "entropy"):
        torch.testing.assert_close(getattr(got, part), getattr(expected, part), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(nodes, written, rtol=tolerance, atol=tolerance)


def test_auto_takes_it_from_large_trees_on_and_only_without_gradients(monkeypatch):
    monkeypatch.setattr(single, "LEAVES_WORTH_COMPILING", 8)
    memory = HierarchicalAttentiveMemory(3, 4, 5)
    query = torch.randn(2, 4)
    with mock.patch.object(single, "attend", side_effect=single.attend) as attend:
        memory.attend(memory.init(torch.randn(2, 8, 3)), query)
        with torch.no_grad():
            memory.attend(memory.init(torch.randn(2, 4, 3)), query)
            memory.attend(memory.init(torch.randn(2, 8, 3)), query, "soft")
            memory.attend(memory.init(torch.randn(2, 8, 3)), query, "straight_through")
        assert not attend.called
        with torch.no_grad():
            memory.attend(memory.init(torch.randn(2, 8, 3)), query)
        assert attend.called


def test_auto_takes_it_from_eight_leaves_on_unless_a_few_accesses_are_all():
    memory = HierarchicalAttentiveMemory(3, 4, 5)
    tree, queries = memory.init(torch.randn(2, 8, 3)), torch.randn(2, 3, 4)
    with mock.patch.object(single, "attend", side_effect=single.attend) as attend, torch.no_grad():
        unroll(memory, queries, tree, 3)
        assert not attend.called
        memory.attend(tree, queries[:, 0])
        assert attend.called


@pytest.mark.parametrize("leaf", [[0, 8], [-1, 0], [0], [0, 0, 0]])
def test_leaves_that_are_not_there_are_not_written(leaf):
    """Compiled loops would write to whatever stands there."""
    memory = HierarchicalAttentiveMemory(3, 4, 5, engine="fused")
    with torch.no_grad():
        tree, query = memory.init(torch.randn(2, 8, 3)), torch.randn(2, 4)
        access = memory.attend(tree, query)._replace(leaf=torch.tensor(leaf))
        assert not memory.accelerator.write(memory, access, query)


@pytest.mark.parametrize("layer", [torch.nn.Linear(5, 2), torch.nn.Linear(4, 5), torch.nn.Linear(5, 5, bias=False)])
def test_layers_that_do_not_fit_are_left_to_pytorch(layer):
    """Compiled loops would read whatever stands behind their weights."""
    memory = HierarchicalAttentiveMemory(3, 4, 5, engine="fused")
    with torch.no_grad():
        tree, query = memory.init(torch.randn(2, 8, 3)), torch.randn(2, 4)
        memory.attend(tree, query)
        memory.search.node = layer
        with mock.patch.object(single, "attend") as attend, contextlib.suppress(RuntimeError):
            memory.attend(tree, query)
    assert not attend.called


def test_a_query_without_memory_of_its_own_falls_back():
    memory = HierarchicalAttentiveMemory(3, 4, 5)
    query, results = torch._efficientzerotensor(2, 4), []
    with torch.no_grad():
        tree = memory.init(torch.randn(2, 8, 3))
        for engine in ("reference", "fused"):
            memory.engine = engine
            results.append(memory.attend(tree, query).logits)
    assert torch.equal(*results)


def test_half_precision_falls_back():
    memory = HierarchicalAttentiveMemory(3, 4, 5, engine="fused").to(torch.bfloat16)
    with torch.no_grad():
        tree = memory.init(torch.randn(2, 8, 3).bfloat16())
        assert memory.attend(tree, torch.randn(2, 4).bfloat16()).read.dtype == torch.bfloat16


def other_layer(memory):
    memory.search.node = torch.nn.Sequential(memory.search.node, torch.nn.Dropout(0.0))


def hooked(memory):
    memory.write_leaf.leaf.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("change", [other_layer, hooked])
def test_modules_that_it_does_not_know_are_called(change):
    memory = HierarchicalAttentiveMemory(3, 4, 5)
    change(memory)
    tree, query = memory.init(torch.randn(2, 8, 3)), torch.randn(2, 4)
    expected, written = access_and_write(memory, tree, query, "argmax", "reference")
    with mock.patch.object(single, "attend") as attend, mock.patch.object(single, "write_in_place") as write:
        got, nodes = access_and_write(memory, tree, query, "argmax", "fused")
    assert not attend.called
    assert not write.called
    assert torch.equal(got.read, expected.read)
    assert torch.equal(nodes, written)


def test_trees_that_lie_otherwise_in_memory_fall_back():
    memory = HierarchicalAttentiveMemory(3, 4, 5)
    query, results = torch.randn(2, 4), []
    with torch.no_grad():
        nodes = memory.init(torch.randn(4, 8, 3)).nodes
        for engine in ("reference", "fused"):
            memory.engine = engine
            access = memory.attend(Tree(nodes.clone()[::2]), query)
            results.append((access.read, memory.write(access, query, in_place=True).nodes))
    for expected, got in zip(*results, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("query", [torch.zeros(2, 3), torch.zeros(2, 5), torch.zeros(2, 4).double()])
def test_queries_that_do_not_fit_are_refused(query):
    """Compiled loops would read memory beyond them."""
    memory = HierarchicalAttentiveMemory(3, 4, 5, engine="fused")
    with torch.no_grad():
        tree = memory.init(torch.randn(2, 8, 3))
        access = memory.attend(tree, torch.zeros(2, 4))
        with pytest.raises(RuntimeError, match=r"shapes|dtype"):
            memory.attend(tree, query)
        with pytest.raises(RuntimeError, match=r"shapes|dtype"):
            memory.write(access, query, in_place=True)


def test_fewer_queries_than_trees_are_what_they_are_elsewhere():
    memory = HierarchicalAttentiveMemory(3, 4, 5)
    with torch.no_grad():
        tree, query = memory.init(torch.randn(2, 8, 3)), torch.randn(1, 4)
        reads = []
        for engine in ("reference", "fused"):
            memory.engine = engine
            reads.append(memory.attend(tree, query).read)
    assert torch.equal(*reads)


def assert_same_as_reference(memory, tree, query):
    expected, written = access_and_write(memory, tree, query, "argmax", "reference")
    got, nodes = access_and_write(memory, tree, query, "argmax", "fused")
    for part in ("leaf", "read", "logits", "path"):
        torch.testing.assert_close(getattr(got, part), getattr(expected, part))
    torch.testing.assert_close(nodes, written)


def updated(memory):
    for parameter in memory.parameters():
        parameter.data.add_(torch.randn_like(parameter))


def loaded(memory):
    other = HierarchicalAttentiveMemory(3, 4, 5, join=JOINS[type(memory.join)])
    memory.load_state_dict(other.state_dict())


def replaced(memory):
    memory.join = HierarchicalAttentiveMemory(3, 4, 5, join=JOINS[type(memory.join)]).join


def given_other_storage(memory):
    for parameter in memory.parameters():
        parameter.data = torch.randn_like(parameter)


def parametrized(memory):
    torch.nn.utils.parametrizations.weight_norm(memory.search.node)


def with_another_forward(memory):
    memory.write_leaf.forward = lambda leaves, query: leaves + 1


def with_a_hook(memory):
    memory.join.hidden.register_forward_hook(lambda module, inputs, output: output + 1)


JOINS = {type(HierarchicalAttentiveMemory(3, 4, 5, join=join).join): join for join in ("gated", "choice", "mlp")}
CHANGES = [updated, loaded, replaced, given_other_storage, parametrized, with_another_forward, with_a_hook]


@pytest.mark.parametrize("join", ["gated", "choice", "mlp"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_was_prepared_for_a_memory_is_not_used_once_it_has_changed(join, change):
    if join == "mlp" and change is with_a_hook:
        pytest.skip("this JOIN has no layer called so")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        memory = HierarchicalAttentiveMemory(3, 4, 5, join=join)
        tree, query = memory.init(torch.randn(2, 8, 3)), torch.randn(2, 4)
        assert_same_as_reference(memory, tree, query)
        change(memory)
        assert_same_as_reference(memory, tree, query)


def test_memories_are_forgotten_with_what_was_prepared_for_them():
    memory = HierarchicalAttentiveMemory(3, 4, 5)
    access_and_write(memory, memory.init(torch.randn(2, 8, 3)), torch.randn(2, 4), "argmax", "fused")
    gone = weakref.ref(memory)
    del memory
    gc.collect()
    assert gone() is None


def test_a_larger_search_in_the_place_of_the_old_one_is_refused_as_by_the_reference():
    memory = HierarchicalAttentiveMemory(4, 32, 32, engine="fused")
    with torch.no_grad():
        tree, query = memory.init(torch.randn(2, 8, 4)), torch.randn(2, 32)
        memory.write(memory.attend(tree, query), query, in_place=True)
        memory.search, memory.write_leaf = Search(32, 4096, 32), Write(32, 4096)
        with pytest.raises(RuntimeError):
            memory.attend(tree, query)
        access = HierarchicalAttentiveMemory(4, 32, 32, engine="reference").attend(tree, query)
        with pytest.raises(RuntimeError):
            memory.write(access, query, in_place=True)


class WritesZeros(Argmax):
    """An estimator of a user's own, whose write is another."""

    def write(self, access, query, write):
        return torch.zeros_like(access.read)


def test_the_write_of_a_users_own_estimator_is_not_skipped():
    memory = HierarchicalAttentiveMemory(4, 6, 5)
    with torch.no_grad():
        tree, query = memory.init(torch.randn(3, 8, 4)), torch.randn(3, 6)
        access = memory.attend(tree, query)._replace(estimator=WritesZeros())
        memory.write(access, query, in_place=True)
    assert not tree.leaves[torch.arange(3), access.leaf].any()


def test_a_put_of_a_users_own_is_not_skipped():
    class PutsNothing(HierarchicalAttentiveMemory):
        def put(self, access, leaf, *, in_place=False):
            return access.tree

    memory = PutsNothing(4, 6, 5)
    with torch.no_grad():
        tree, query = memory.init(torch.randn(3, 8, 4)), torch.randn(3, 6)
        before = tree.nodes.clone()
        memory.write(memory.attend(tree, query), query, in_place=True)
    assert torch.equal(tree.nodes, before)


def test_autograd_notices_a_write_in_place():
    memory = HierarchicalAttentiveMemory(4, 6, 5)
    weight = torch.ones(5, requires_grad=True)
    with torch.no_grad():
        tree, query = memory.init(torch.randn(3, 8, 4)), torch.randn(3, 6)
    total = (tree.nodes * weight).sum()
    with torch.no_grad():
        memory.write(memory.attend(tree, query), query, in_place=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_transformations_and_counters_see_the_plain_operations():
    memory = HierarchicalAttentiveMemory(4, 6, 5)
    with torch.no_grad():
        tree, queries = memory.init(torch.randn(3, 8, 4)), torch.randn(2, 3, 6)
        with FlopCounterMode(display=False) as counter:
            memory.attend(tree, queries[0])
        assert counter.get_total_flops() > 0
        reads = torch.func.vmap(lambda query: memory.search(tree.nodes, query))(queries)
        assert torch.allclose(reads[1], memory.search(tree.nodes, queries[1]))
