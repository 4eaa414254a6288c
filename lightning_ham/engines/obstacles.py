"""What keeps compiled loops from doing what a memory's modules do."""

from __future__ import annotations

import functools
import importlib.util
from itertools import repeat
from operator import attrgetter, contains, is_

import torch
from torch import Tensor, nn

from lightning_ham.memory import Estimator, HierarchicalAttentiveMemory
from lightning_ham.memory.transforms import ChoiceJoin, Embed, GatedJoin, MLPJoin, Search, Write

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

_FORWARD = repeat("forward")
_forward_of = attrgetter("forward")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
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
    if any(own[name] for name in _HOOKS):
        return False
    if any(parameter is not None and parameter.dtype != dtype for parameter in own["_parameters"].values()):
        return False
    found = own["_modules"]
    if not parts.keys() <= found.keys() <= parts.keys() | {"parametrizations"}:
        return False
    return all(_is_plain(found[name], part, dtype) for name, part in parts.items())


class PlainModules:
    """Modules that compiled loops stand for, and a quick answer to whether they still do.

    To look at every part of a memory takes longer than an access. So all that could change is written down once, and
    only compared from then on: parts, parameters and their storage, hooks, and methods that were put in others' place.

    Args:
        modules: Modules in which :func:`obstacle` finds none.
    """

    def __init__(self, *modules: nn.Module) -> None:
        parts = [part for module in modules for part in module.modules()]
        self.has_parametrizations = any("parametrizations" in vars(part)["_modules"] for part in parts)
        """Whether parameters are computed whenever they are asked for."""
        self._hooks = [vars(part)[name] for part in parts for name in _HOOKS]
        self._own = [vars(part) for part in parts]
        self._kinds = list({type(part) for part in parts})
        self._forwards = [kind.forward for kind in self._kinds]
        held = [
            (holder, name, value)
            for part in parts
            for holder in (vars(part)["_modules"], vars(part)["_parameters"])
            for name, value in holder.items()
        ]
        self._holders, self._names, self._values = ([entry[column] for entry in held] for column in range(3))
        self._tensors = [value for value in self._values if isinstance(value, Tensor)]
        self._pointers = [tensor.data_ptr() for tensor in self._tensors]

    def are_unchanged(self) -> bool:
        """Return whether the modules consist of the same parts, which do the same with the same numbers in memory."""
        # This is asked twice an access, so its loops are those of `map`: others take twice as long.
        return not (
            any(self._hooks)
            or any(map(contains, self._own, _FORWARD))
            or not all(map(is_, map(_forward_of, self._kinds), self._forwards))
            or not all(map(is_, map(dict.get, self._holders, self._names), self._values))
            or list(map(Tensor.data_ptr, self._tensors)) != self._pointers
        )


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def replaced(memory: HierarchicalAttentiveMemory, *names: str) -> str | None:
    """Return the first of the methods called ``names`` that is another than the memory's class has, if any."""
    for name in names:
        own = getattr(HierarchicalAttentiveMemory, name)
        if getattr(type(memory), name) is not own or name in vars(memory):
            return name
    return None


def obstacle_to_episodes(
    memory: HierarchicalAttentiveMemory,
    source: nn.LSTMCell | Tensor,
    leaves: Tensor,
    attention: str,
    estimator: Estimator,
) -> str | None:
    """Return what keeps compiled loops from running these episodes, if anything.

    Args:
        memory: The memory.
        source: The cell whose states are the queries, or the queries ``[batch, accesses, query_size]``.
        leaves: The leaves at first, ``[batch, num_leaves, leaf_size]``.
        attention: Name of the estimator.
        estimator: How leaves are chosen.
    """
    if estimator.compiled is None:
        return f"attention '{attention}' {estimator.why_not_compiled}"
    method = replaced(memory, "attend", "write")
    if method:
        return f"it does not know what {type(memory).__name__}.{method} does"
    cell = source if isinstance(source, nn.LSTMCell) else None
    found = obstacle(leaves, memory.join, memory.search, memory.write_leaf, *([cell] if cell else []))
    if found:
        return found
    query_size = memory.search.query.in_features
    fits = leaves.shape[2] == memory.leaf_size
    if isinstance(source, Tensor):
        fits &= (source.shape[0], source.shape[2], source.dtype) == (leaves.shape[0], query_size, leaves.dtype)
    else:
        fits &= (source.input_size, source.hidden_size) == (memory.leaf_size, query_size)
    return None if fits else "leaves, memory and cell or queries do not fit together"  # compiled loops check no bounds
