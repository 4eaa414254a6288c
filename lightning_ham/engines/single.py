"""Single accesses without gradients in compiled loops, on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_ham.engines.choice import LEAVES_WORTH_COMPILING, compiles, may_compile
from lightning_ham.engines.first_use import FirstUse
from lightning_ham.engines.obstacles import obstacle
from lightning_ham.memory import Access, Estimator, HierarchicalAttentiveMemory, Tree
from lightning_ham.memory.transforms import Search

_first_attend, _first_write = (
    FirstUse(f"Compiling the loops that {what} for this machine; this takes some seconds, once.")
    for what in ("attend", "write")
)


class CompiledAccesses:
    """Makes the accesses of a :class:`HierarchicalAttentiveMemory` whose engine asks for compiled loops."""

    def attend(
        self,
        memory: HierarchicalAttentiveMemory,
        tree: Tree,
        query: Tensor,
        estimator: Estimator,
        generator: torch.Generator | None,
    ) -> Access | None:
        """Attend and read, where an estimator makes one descent, sampled or not."""
        known = estimator.compiled is not None and not estimator.compiled.counterfactual
        if not (known and _suits(memory, tree, query)):
            return None
        noise = estimator.draw_noise(len(query), tree.depth, query, generator, memory.noise)
        rows, logits, path, siblings = attend(memory.search, tree, query, noise)
        none = logits.new_zeros(len(query), 0)
        leaf = rows - tree.num_leaves
        scale = memory.noise if estimator.scales_noise else 1.0
        return Access(path[:, -1], leaf, logits, path, siblings, none, tree, estimator=estimator, noise_scale=scale)

    def write(self, memory: HierarchicalAttentiveMemory, access: Access, query: Tensor) -> bool:
        """Write to the attended leaf and re-join its ancestors, in place."""
        if type(access) is not Access or access.weights.shape[1] or not _suits(memory, access.tree, query):
            return False
        write_in_place(memory, access.tree, access.leaf + access.tree.num_leaves, query)
        return True


def _suits(memory: HierarchicalAttentiveMemory, tree: Tree, query: Any) -> bool:
    """Whether compiled loops make an access to ``tree``; they check no bounds, so all must fit."""
    if not may_compile(memory.engine) or torch.is_grad_enabled() or type(tree) is not Tree:
        return False
    nodes: Any = tree.nodes
    if not (isinstance(nodes, Tensor) and nodes.dim() == 3 and nodes.is_contiguous() and isinstance(query, Tensor)):
        return False
    rows = nodes.shape[1]
    if rows < 2 or rows & (rows - 1) or obstacle(nodes, memory.join, memory.search, memory.write_leaf):
        return False
    sizes = (len(nodes), memory.search.query.in_features), memory.leaf_size
    if (query.shape, nodes.shape[2]) != sizes or query.dtype != nodes.dtype:
        return False
    return compiles(memory.engine, tree.num_leaves, LEAVES_WORTH_COMPILING, None)


def attend(search: Search, tree: Tree, query: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return leaf rows ``[batch]``, logits ``[batch, depth]``, path and siblings as in :class:`Access`.

    Args:
        search: SEARCH.
        tree: The memory's state.
        query: The controller's state, ``[batch, query_size]``.
        noise: Added to the logits, ``[batch, depth]``; or ``[batch, 0]``.
    """
    from lightning_ham.engines.kernels import access

    batch, _, size = tree.nodes.shape
    depth = tree.depth
    w = access.SearchWeights(*arrays(*search_parameters(search)))
    leaf_rows = torch.empty(batch, dtype=torch.long)
    logits = query.new_empty(batch, depth)
    path, siblings = query.new_empty(batch, depth + 1, size), query.new_empty(batch, depth, size)
    with _first_attend():
        access.attend(*arrays(tree.nodes, query, noise), w, *arrays(leaf_rows, logits, path, siblings))
    return leaf_rows, logits, path, siblings


def write_in_place(memory: HierarchicalAttentiveMemory, tree: Tree, leaf_rows: Tensor, query: Tensor) -> None:
    """Write to the leaves at ``leaf_rows`` ``[batch]`` of ``tree`` itself, and re-join their ancestors."""
    from lightning_ham.engines.kernels import access

    with _first_write():
        access.write(*arrays(tree.nodes, leaf_rows, query), access.WriteWeights(*arrays(*write_parameters(memory))))


def search_parameters(search: Search) -> tuple[Tensor, ...]:
    """Return SEARCH's parameters in the order in which compiled loops want them."""
    return search.node.weight, search.node.bias, search.query.weight, search.out.weight, search.out.bias


def write_parameters(memory: HierarchicalAttentiveMemory) -> tuple[Tensor, ...]:
    """Return those of WRITE and JOIN."""
    write = memory.write_leaf
    return write.leaf.weight, write.leaf.bias, write.query.weight, *memory.join.layer_weights


def arrays(*tensors: Tensor) -> list[Any]:
    """Return tensors as arrays, which share their memory where they can."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
