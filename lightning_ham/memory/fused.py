"""Single accesses in compiled loops: attend and write without gradients, on the CPU."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_ham.memory.transforms import GatedJoin, MLPJoin, Search, Write
from lightning_ham.memory.tree import Tree

if TYPE_CHECKING:
    from lightning_ham.memory.ham import HierarchicalAttentiveMemory

WORTH_COMPILING = 1 << 10
"""Leaves from which ``auto`` uses the compiled access, whose first use on a machine takes seconds."""

_KNOWN_FORWARDS = {module.forward for module in (GatedJoin, MLPJoin, Search, Write, nn.LSTMCell)}


def obstacle(tensor: Tensor, *modules: nn.Module) -> str | None:
    """Return what keeps compiled loops from working on ``tensor`` in the place of ``modules``, if anything."""
    if type(tensor) is not Tensor or tensor.device.type != "cpu":
        return f"it runs on the CPU, and the memory is on '{tensor.device}'"
    if tensor.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
        return "it computes in float32 or float64 only"
    for module in modules:
        known = type(module).forward in _KNOWN_FORWARDS and next(module.parameters()).dtype == tensor.dtype
        if not known or any(_has_hooks(part) for part in module.modules()):
            return f"it does not know what {type(module).__name__} does"
    if importlib.util.find_spec("numba") is None:
        return "it needs Numba: pip install numba"
    return None


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001 - there is no public way to ask


def attend(search: Search, tree: Tree, query: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return leaf rows ``[batch]``, logits ``[batch, depth]``, path and siblings as in :class:`Access`.

    Args:
        search: SEARCH.
        tree: The memory's state.
        query: The controller's state, ``[batch, query_size]``.
        noise: Added to the logits, ``[batch, depth]``; or ``[batch, 0]``.
    """
    from lightning_ham.kernels import access

    batch, _, size = tree.nodes.shape
    depth = tree.depth
    w = access.SearchWeights(
        *_arrays(search.node.weight, search.node.bias, search.query.weight, search.out.weight, search.out.bias)
    )
    leaf_rows = torch.empty(batch, dtype=torch.long)
    logits = query.new_empty(batch, depth)
    path, siblings = query.new_empty(batch, depth + 1, size), query.new_empty(batch, depth, size)
    access.attend(*_arrays(tree.nodes, query, noise), w, *_arrays(leaf_rows, logits, path, siblings))
    return leaf_rows, logits, path, siblings


def write_in_place(memory: HierarchicalAttentiveMemory, tree: Tree, leaf_rows: Tensor, query: Tensor) -> None:
    """Write to the leaves at ``leaf_rows`` ``[batch]`` of ``tree`` itself, and re-join their ancestors."""
    from lightning_ham.kernels import access

    write, (hidden, out) = memory.write_leaf, memory.join.layers
    parameters = (
        write.leaf.weight,
        write.leaf.bias,
        write.query.weight,
        hidden.weight,
        hidden.bias,
        out.weight,
        out.bias,
    )
    access.write(*_arrays(tree.nodes, leaf_rows, query), access.WriteWeights(*_arrays(*parameters)))


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
