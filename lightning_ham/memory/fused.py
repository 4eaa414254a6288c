"""Single accesses in compiled loops: attend and write without gradients, on the CPU."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_ham.kernels.first_use import FirstUse
from lightning_ham.memory.transforms import ChoiceJoin, Embed, GatedJoin, MLPJoin, Search, Write
from lightning_ham.memory.tree import Tree

if TYPE_CHECKING:
    from lightning_ham.kernels.session import Perceptron, Session
    from lightning_ham.memory.ham import HierarchicalAttentiveMemory

WORTH_COMPILING = 1 << 10
"""Leaves from which ``auto`` uses the compiled access, whose first use on a machine takes seconds."""

_Kind = type[nn.Module] | tuple[type[nn.Module], ...]
"""A kind of module; several are one after the other in a Sequential."""

_PERCEPTRON = (nn.Linear, nn.ReLU, nn.Linear)

_PARTS: dict[_Kind, dict[str, _Kind]] = {
    GatedJoin: {"hidden": nn.Linear, "out": nn.Linear},
    ChoiceJoin: {"hidden": nn.Linear, "out": nn.Linear},
    MLPJoin: {"mlp": (*_PERCEPTRON, nn.Tanh)},
    Embed: {"mlp": _PERCEPTRON},
    Search: {"node": nn.Linear, "query": nn.Linear, "out": nn.Linear},
    Write: {"leaf": nn.Linear, "query": nn.Linear},
}
"""What the modules that compiled loops stand for consist of."""

_KINDS = {kind.forward: kind for kind in (GatedJoin, ChoiceJoin, MLPJoin, Embed, Search, Write, nn.LSTMCell)}


def obstacle(tensor: Tensor, *modules: nn.Module) -> str | None:
    """Return what keeps compiled loops from working on ``tensor`` in the place of ``modules``, if anything."""
    if tensor.device.type != "cpu":
        return f"it runs on the CPU, and the memory is on '{tensor.device}'"
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"it takes plain tensors, and the memory is a {type(tensor).__name__}"
    if tensor.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
        return "it computes in float32 or float64 only"
    for module in modules:
        kind: _Kind | None = _PERCEPTRON if type(module) is nn.Sequential else _KINDS.get(type(module).forward)
        if kind is None or not _is_plain(module, kind, tensor.dtype):
            return f"it does not know what {type(module).__name__} does"
    if not _has_numba():
        return "it needs Numba: pip install numba"
    return None


def _is_plain(module: nn.Module, kind: _Kind, dtype: torch.dtype) -> bool:
    """Whether calling ``module`` does what ``kind`` does, in ``dtype``, and nothing else.

    Parametrizations may be there: the parameter that is taken from the module is the one that they compute.
    """
    own = vars(module)  # there is no public way to ask for hooks, and this is asked at every access
    parts = _PARTS.get(kind, {})
    if isinstance(kind, tuple):
        parts = {str(index): part for index, part in enumerate(kind)}
        kind = nn.Sequential
    if type(module).forward is not kind.forward or "forward" in own:
        return False
    if own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]:
        return False
    if any(parameter is not None and parameter.dtype != dtype for parameter in own["_parameters"].values()):
        return False
    found = own["_modules"]
    if not parts.keys() <= found.keys() <= parts.keys() | {"parametrizations"}:
        return False
    return all(_is_plain(found[name], part, dtype) for name, part in parts.items())


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


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
    w = access.SearchWeights(*_arrays(*_search_parameters(search)))
    leaf_rows = torch.empty(batch, dtype=torch.long)
    logits = query.new_empty(batch, depth)
    path, siblings = query.new_empty(batch, depth + 1, size), query.new_empty(batch, depth, size)
    with _first_attend():
        access.attend(*_arrays(tree.nodes, query, noise), w, *_arrays(leaf_rows, logits, path, siblings))
    return leaf_rows, logits, path, siblings


def write_in_place(memory: HierarchicalAttentiveMemory, tree: Tree, leaf_rows: Tensor, query: Tensor) -> None:
    """Write to the leaves at ``leaf_rows`` ``[batch]`` of ``tree`` itself, and re-join their ancestors."""
    from lightning_ham.kernels import access

    with _first_write():
        access.write(*_arrays(tree.nodes, leaf_rows, query), access.WriteWeights(*_arrays(*_write_parameters(memory))))


def _search_parameters(search: Search) -> tuple[Tensor, ...]:
    return search.node.weight, search.node.bias, search.query.weight, search.out.weight, search.out.bias


def _write_parameters(memory: HierarchicalAttentiveMemory) -> tuple[Tensor, ...]:
    write = memory.write_leaf
    return write.leaf.weight, write.leaf.bias, write.query.weight, *memory.join.layer_weights


def open_session(memory: HierarchicalAttentiveMemory, tree: Tree) -> Session:
    """Return accesses to ``tree``, a batch of one, which is changed in place; what there is to wait for is waited for.

    :func:`obstacle` must find none for it and JOIN, SEARCH and WRITE.
    """
    from lightning_ham.kernels import access, session

    (nodes,) = _arrays(tree.nodes)
    search = access.SearchWeights(*_copies(*_search_parameters(memory.search)))
    write = access.WriteWeights(*_copies(*_write_parameters(memory)))
    with _first_session():
        return session.Session(nodes, search, write)


def perceptron(layers: nn.Sequential) -> Perceptron:
    """Return what does the same as a linear layer, a ReLU and a linear layer, in which :func:`obstacle` finds none."""
    from lightning_ham.kernels import session

    hidden, out = (layer for layer in layers if isinstance(layer, nn.Linear))
    return session.Perceptron(*_copies(hidden.weight, _bias(hidden), out.weight, _bias(out)))


_first_attend, _first_write, _first_session = (
    FirstUse(f"Compiling the loops that {what} for this machine; this takes some seconds, once.")
    for what in ("attend", "write", "carry out operations")
)


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _bias(layer: nn.Linear) -> Tensor:
    bias: Any = layer.bias  # None where there is none, other than its annotation says
    return layer.weight.new_zeros(layer.out_features) if bias is None else bias


def _copies(*tensors: Tensor) -> list[Any]:
    return [array.copy() for array in _arrays(*tensors)]
