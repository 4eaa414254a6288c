"""Single accesses without gradients in compiled loops, on the CPU."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ham.engines.choice import LEAVES_WORTH_COMPILING, compiles, may_compile
from lightning_ham.engines.first_use import FirstUse
from lightning_ham.engines.obstacles import PlainModules, obstacle
from lightning_ham.memory import Access, Estimator, HierarchicalAttentiveMemory, Tree
from lightning_ham.memory.transforms import Search

_first_attend, _first_write = (
    FirstUse(f"Compiling the loops that {what} for this machine; this takes some seconds, once.")
    for what in ("attend", "write")
)


class CompiledAccesses:
    """Makes the accesses of a :class:`HierarchicalAttentiveMemory` whose engine asks for compiled loops."""

    def __init__(self) -> None:
        self._prepared: WeakKeyDictionary[HierarchicalAttentiveMemory, _Prepared] = WeakKeyDictionary()

    def attend(
        self,
        memory: HierarchicalAttentiveMemory,
        tree: Tree,
        query: Tensor,
        estimator: Estimator,
        generator: torch.Generator | None,
    ) -> Access | None:
        """Attend and read, if the estimator makes a single descent, sampled or not; else return None."""
        if estimator.compiled is None or estimator.compiled.counterfactual:
            return None
        prepared = self._suiting(memory, tree, query)
        if prepared is None:
            return None
        noise = estimator.draw_noise(len(query), tree.depth, query, generator, memory.noise)
        leaf, logits, path, siblings = attend(prepared.search, tree, query, noise)
        none = logits.new_empty(len(query), 0)
        scale = estimator.noise_scale(memory.noise)
        return Access(path[:, -1], leaf, logits, path, siblings, none, tree, estimator=estimator, noise_scale=scale)

    def write(self, memory: HierarchicalAttentiveMemory, access: Access, query: Tensor) -> bool:
        """Write to the attended leaf and re-join its ancestors, in place; return False if that is not possible."""
        if type(access) is not Access or access.weights.shape[1]:
            return False
        prepared = self._suiting(memory, access.tree, query)
        if prepared is None:
            return False
        write_in_place(prepared.write, access.tree, access.leaf, query)
        return True

    def _suiting(self, memory: HierarchicalAttentiveMemory, tree: Tree, query: Any) -> _Prepared | None:
        """Return the memory's weights if compiled loops may access ``tree``: they check no bounds."""
        if not may_compile(memory.engine) or torch.is_grad_enabled() or type(tree) is not Tree:
            return None
        nodes: Any = tree.nodes
        if not (isinstance(nodes, Tensor) and nodes.dim() == 3 and nodes.is_contiguous() and isinstance(query, Tensor)):
            return None
        batch, rows, leaf_size = nodes.shape
        if rows < 2 or rows & (rows - 1) or obstacle(nodes):
            return None
        prepared = self._prepared.get(memory)
        if prepared is None or not prepared.holds(memory):
            modules = memory.join, memory.search, memory.write_leaf
            if obstacle(nodes, *modules):
                return None
            prepared = self._prepared[memory] = _Prepared(memory)
        sizes = (batch, prepared.query_size), prepared.leaf_size, prepared.dtype, prepared.dtype
        if (query.shape, leaf_size, query.dtype, nodes.dtype) != sizes:
            return None
        return prepared if compiles(memory.engine, rows // 2, LEAVES_WORTH_COMPILING, None) else None


class _Prepared:
    """The weights of a memory as arrays, valid until its modules change."""

    def __init__(self, memory: HierarchicalAttentiveMemory) -> None:
        from lightning_ham.engines.kernels import access

        self._parts = memory.join, memory.search, memory.write_leaf
        self._modules = PlainModules(*self._parts)
        parameters = (*search_parameters(memory.search), *write_parameters(memory))
        self._share_memory = not self._modules.has_parametrizations and all(
            isinstance(parameter, nn.Parameter) and parameter.is_contiguous() for parameter in parameters
        )
        self.search = access.SearchWeights(*arrays(*parameters[:5]))
        self._grid = memory.grid
        self.write = access.WriteWeights(*(*arrays(*parameters[5:]), grid_steps(memory)))
        self.leaf_size = memory.leaf_size
        self.query_size = memory.search.query.in_features
        self.dtype = parameters[0].dtype

    def holds(self, memory: HierarchicalAttentiveMemory) -> bool:
        """Return whether these are still the memory's weights."""
        join, search, write_leaf = self._parts
        found = vars(memory)["_modules"]
        is_same = found["join"] is join and found["search"] is search and found["write_leaf"] is write_leaf
        return self._share_memory and is_same and memory.grid == self._grid and self._modules.are_unchanged()


def attend(w: Any, tree: Tree, query: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return leaves ``[batch]``, logits ``[batch, depth]``, path and siblings as in :class:`Access`.

    Args:
        w: SEARCH's weights (:class:`lightning_ham.engines.kernels.access.SearchWeights`).
        tree: The memory's state.
        query: The controller's state, ``[batch, query_size]``.
        noise: Added to the logits, ``[batch, depth]``; or ``[batch, 0]``.
    """
    from lightning_ham.engines.kernels import access

    nodes, queries, noises = arrays(tree.nodes, query, noise)
    batch, rows, size = nodes.shape
    depth = rows.bit_length() - 2
    leaf_rows = np.empty(batch, np.int64)
    logits = np.empty((batch, depth), nodes.dtype)
    path = np.empty((batch, depth + 1, size), nodes.dtype)
    siblings = np.empty((batch, depth, size), nodes.dtype)
    with _first_attend():
        access.attend(nodes, queries, noises, w, leaf_rows, logits, path, siblings)
    share = torch.from_numpy
    return share(leaf_rows - rows // 2), share(logits), share(path), share(siblings)


def write_in_place(w: Any, tree: Tree, leaf: Tensor, query: Tensor) -> None:
    """Write to the leaves ``[batch]`` of ``tree`` itself, and re-join their ancestors.

    Args:
        w: The weights of WRITE and JOIN (:class:`lightning_ham.engines.kernels.access.WriteWeights`).
        tree: The memory's state, which is changed.
        leaf: Index of the leaf, ``[batch]``.
        query: The controller's state, ``[batch, query_size]``.
    """
    from lightning_ham.engines.kernels import access

    nodes, leaves, queries = arrays(tree.nodes, leaf, query)
    with _first_write():
        access.write(nodes, leaves + nodes.shape[1] // 2, queries, w)


def search_parameters(search: Search) -> tuple[Tensor, ...]:
    """Return SEARCH's parameters in the order of ``SearchWeights`` in :mod:`lightning_ham.engines.kernels.access`."""
    return search.node.weight, search.node.bias, search.query.weight, search.out.weight, search.out.bias


def write_parameters(memory: HierarchicalAttentiveMemory) -> tuple[Tensor, ...]:
    """Return the parameters of WRITE and JOIN, in the order of ``WriteWeights`` there."""
    write = memory.write_leaf
    return write.leaf.weight, write.leaf.bias, write.query.weight, *memory.join.layer_weights


def grid_steps(memory: HierarchicalAttentiveMemory) -> Any:
    """Return how many multiples of its grid a memory has in 1, of the type of its nodes; 0 if it has no grid."""
    return memory.embed.blank.new_tensor(1 / memory.grid if memory.grid else 0.0).numpy()[()]


def arrays(*tensors: Tensor) -> list[Any]:
    """Return tensors as arrays, which share their memory if possible."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
