"""Reasons why compiled loops cannot replace a memory's modules."""

from __future__ import annotations

from itertools import repeat
from operator import attrgetter, contains, is_

import torch
from torch import Tensor, nn

from lightning_ham.engines.choice import has_numba
from lightning_ham.memory import Estimator, HierarchicalAttentiveMemory
from lightning_ham.memory.transforms import ChoiceJoin, Embed, GatedJoin, MLPJoin, Search, Write

_Kind = type[nn.Module] | tuple[type[nn.Module], ...]
"""A kind of module; a tuple stands for a Sequential of these kinds."""

_PERCEPTRON = (nn.Linear, nn.ReLU, nn.Linear)

_PARTS: dict[_Kind, dict[str, _Kind]] = {
    GatedJoin: {"hidden": nn.Linear, "out": nn.Linear},
    ChoiceJoin: {"hidden": nn.Linear, "out": nn.Linear},
    MLPJoin: {"mlp": (*_PERCEPTRON, nn.Tanh)},
    Embed: {"mlp": _PERCEPTRON},
    Search: {"node": nn.Linear, "query": nn.Linear, "out": nn.Linear},
    Write: {"leaf": nn.Linear, "query": nn.Linear},
}
"""Submodules of the modules that compiled loops can replace."""

_FORWARD = repeat("forward")
_forward_of = attrgetter("forward")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_KINDS = {kind.forward: kind for kind in (GatedJoin, ChoiceJoin, MLPJoin, Embed, Search, Write, nn.LSTMCell)}


def obstacle(tensor: Tensor, *modules: nn.Module) -> str | None:
    """Return why compiled loops cannot replace ``modules`` on ``tensor``; None if they can."""
    if tensor.device.type != "cpu":
        return f"it runs on the CPU, and the memory is on '{tensor.device}'"
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"it takes plain tensors, and the memory is a {type(tensor).__name__}"
    if tensor.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
        return "it computes in float32 or float64 only"
    unknown = unknown_part(tensor.dtype, *modules)
    if unknown:
        return f"it does not know what {unknown} does"
    if not has_numba():
        return "it needs Numba: pip install numba"
    return None


def unknown_part(dtype: torch.dtype, *modules: nn.Module) -> str | None:
    """Return the class of the first module that does something other than the package's own in ``dtype``, if any."""
    for module in modules:
        kind: _Kind | None = _PERCEPTRON if type(module) is nn.Sequential else _KINDS.get(type(module).forward)
        if kind is None or not _is_plain(module, kind, dtype):
            return type(module).__name__
    return None


def _is_plain(module: nn.Module, kind: _Kind, dtype: torch.dtype) -> bool:
    """Return whether calling ``module`` does exactly what ``kind`` does, in ``dtype``.

    Parametrizations are allowed: reading a parameter from the module gives the computed one.
    """
    own = vars(module)  # there is no public way to ask for hooks, and every access calls this
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
    """Modules that compiled loops replace, and a quick check whether they may still do so.

    Checking every part of a memory takes longer than an access. So this class records once whatever may change, and
    later only compares it: parts, parameters and their storage, hooks, and replaced methods.

    Args:
        modules: Modules without an :func:`obstacle`.
    """

    def __init__(self, *modules: nn.Module) -> None:
        parts = [part for module in modules for part in module.modules()]
        self.has_parametrizations = any("parametrizations" in vars(part)["_modules"] for part in parts)
        """Whether some parameters are computed at each use."""
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
        """Return whether the modules have the same parts and methods, and the same parameters at the same addresses."""
        # This runs twice per access, so it loops with `map`: other loops take twice as long.
        return not (
            any(self._hooks)
            or any(map(contains, self._own, _FORWARD))
            or not all(map(is_, map(_forward_of, self._kinds), self._forwards))
            or not all(map(is_, map(dict.get, self._holders, self._names), self._values))
            or list(map(Tensor.data_ptr, self._tensors)) != self._pointers
        )


def replaced(memory: HierarchicalAttentiveMemory, *names: str) -> str | None:
    """Return the first of these methods that a subclass or the memory itself overrides, if any."""
    for name in names:
        own = getattr(HierarchicalAttentiveMemory, name)
        if getattr(type(memory), name) is not own or name in vars(memory):
            return name
    return None


def has_mixed_grids(memory: HierarchicalAttentiveMemory) -> bool:
    """Return whether JOIN or WRITE rounds to another grid than the memory's."""
    return any(vars(part).get("grid") != memory.grid for part in (memory.join, memory.write_leaf))


def obstacle_to_episodes(
    memory: HierarchicalAttentiveMemory,
    source: nn.LSTMCell | Tensor,
    leaves: Tensor,
    attention: str,
    estimator: Estimator,
) -> str | None:
    """Return why compiled loops cannot run these episodes; None if they can.

    Args:
        memory: The memory.
        source: The cell whose states are the queries, or the queries ``[batch, accesses, query_size]``.
        leaves: The initial leaves, ``[batch, num_leaves, leaf_size]``.
        attention: Name of the estimator.
        estimator: Chooses leaves.
    """
    if torch.compiler.is_compiling():
        return "torch.compile and torch.export trace plain PyTorch only"
    if estimator.compiled is None:
        return f"attention '{attention}' {estimator.why_not_compiled}"
    method = replaced(memory, "attend", "write")
    if method:
        return f"it does not know what {type(memory).__name__}.{method} does"
    cell = source if isinstance(source, nn.LSTMCell) else None
    found = obstacle(leaves, memory.join, memory.search, memory.write_leaf, *([cell] if cell else []))
    if found:
        return found
    if has_mixed_grids(memory):
        return "JOIN or WRITE has another grid than the memory"
    query_size = memory.search.query.in_features
    fits = leaves.shape[2] == memory.leaf_size
    if isinstance(source, Tensor):
        fits &= (source.shape[0], source.shape[2], source.dtype) == (leaves.shape[0], query_size, leaves.dtype)
    else:
        fits &= (source.input_size, source.hidden_size) == (memory.leaf_size, query_size)
    return None if fits else "leaves, memory and cell or queries do not fit together"  # compiled loops check no bounds
