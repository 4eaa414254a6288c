"""Single accesses without gradients in compiled loops, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ham.engines.choice import LEAVES_WORTH_COMPILING, compiles, leaves_worth_compiling
from lightning_ham.engines.first_use import FirstUse
from lightning_ham.engines.obstacles import PlainModules, has_mixed_grids, obstacle, replaced
from lightning_ham.memory import Access, Estimator, HierarchicalAttentiveMemory, Tree
from lightning_ham.memory.transforms import ChoiceJoin, MLPJoin, Search

_first_attend, _first_write = (
    FirstUse(f"Compiling the loops that {what} for this machine; this takes some seconds, once.")
    for what in ("attend", "write")
)

_NOT_SUITING = None, 0, 0


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
        """Attend and read; return None to decline, as for estimators that do not make a single descent."""
        if estimator.compiled is None or estimator.compiled.counterfactual:
            return None
        prepared, batch, depth = self._suiting(memory, tree, query)
        if prepared is not None and not prepared.search.are_current(memory):
            prepared, batch, depth = self._suiting_anew(memory, tree, query)
        if prepared is None:
            return None
        noise = None
        if estimator.noise_count(depth):
            noise = estimator.draw_noise(batch, depth, query, generator, memory.noise)
        read, leaf, logits, path, siblings = attend(prepared.search, tree, query, noise, batch, depth)
        scale, none = estimator.noise_scale(memory.noise), prepared.no_weights(batch)
        return Access(read, leaf, logits, path, siblings, none, tree, None, 1.0, estimator, scale)

    def write(self, memory: HierarchicalAttentiveMemory, access: Access, query: Tensor) -> bool:
        """Write to the attended leaf and re-join its ancestors, in place; return False to decline."""
        if type(access) is not Access or access.weights.shape[1] or access.estimator.compiled is None:
            return False
        if replaced(memory, "put"):
            return False
        tree, leaf = access.tree, access.leaf
        prepared, batch, depth = self._suiting(memory, tree, query)
        if prepared is None or not _is_in_memory(leaf) or leaf.dtype != torch.int64 or leaf.shape != (batch,):
            return False
        if not prepared.write.are_current(memory):
            prepared, batch, depth = self._suiting_anew(memory, tree, query)
        return prepared is not None and write_in_place(prepared.write, tree, leaf, query, batch, depth)

    def _suiting_anew(
        self, memory: HierarchicalAttentiveMemory, tree: Tree, query: Tensor
    ) -> tuple[_Prepared | None, int, int]:
        """Prepare the weights again, as they have changed, and return the result of :meth:`_suiting`."""
        self._prepared.pop(memory, None)
        return self._suiting(memory, tree, query)

    def _suiting(
        self, memory: HierarchicalAttentiveMemory, tree: Tree, query: Any
    ) -> tuple[_Prepared | None, int, int]:
        """Return prepared weights, batch and depth for an access to ``tree``; None, 0 and 0 to decline.

        This checks shapes, as compiled loops check no bounds. The caller checks whether the weights are current.
        """
        if torch.is_grad_enabled() or type(tree) is not Tree or torch.is_autocast_enabled("cpu"):
            return _NOT_SUITING
        if torch._C._len_torch_dispatch_stack():  # noqa: SLF001 - modes that record operations would miss compiled ones
            return _NOT_SUITING
        nodes: Any = tree.nodes
        if not (_is_in_memory(nodes) and _is_in_memory(query) and nodes.is_contiguous()):
            return _NOT_SUITING
        shape = nodes.shape
        if len(shape) != 3:
            return _NOT_SUITING
        batch, rows, leaf_size = shape
        if rows < 2 or rows & (rows - 1):
            return _NOT_SUITING
        if not compiles(memory.engine, rows // 2, leaves_worth_compiling(LEAVES_WORTH_COMPILING), None):
            return _NOT_SUITING
        prepared = self._prepared.get(memory) or self._prepare(memory, nodes)
        if prepared is None or query.shape != (batch, prepared.query_size) or leaf_size != prepared.leaf_size:
            return _NOT_SUITING
        if not query.dtype == nodes.dtype == prepared.dtype:
            return _NOT_SUITING
        return prepared, batch, rows.bit_length() - 2

    def _prepare(self, memory: HierarchicalAttentiveMemory, nodes: Tensor) -> _Prepared | None:
        """Prepare the current weights; return None if compiled loops cannot replace the modules."""
        known = not obstacle(nodes, memory.join, memory.search, memory.write_leaf) and not has_mixed_grids(memory)
        if not known or not _fit_together(memory, nodes.dtype):
            self._prepared.pop(memory, None)
            return None
        prepared = self._prepared[memory] = _Prepared(memory)
        return prepared


def _is_in_memory(tensor: object) -> bool:
    """Return whether compiled loops can use a tensor's numbers where they are in memory."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return False
    assert isinstance(tensor, Tensor)
    try:
        return tensor.is_cpu and tensor.layout is torch.strided and not tensor.is_neg() and tensor.data_ptr() != 0
    except RuntimeError:  # within torch.func's transformations
        return False


def _fit_together(memory: HierarchicalAttentiveMemory, dtype: torch.dtype) -> bool:
    """Return whether the weights have the type and shapes that compiled loops assume; they check no bounds."""
    search: tuple[Any, ...] = search_parameters(memory.search)
    write: tuple[Any, ...] = write_parameters(memory)
    if any(not isinstance(weight, Tensor) or weight.dtype != dtype for weight in (*search, *write)):
        return False
    size, reals = memory.leaf_size, memory.join.num_reals
    units, query_size = memory.search.query.weight.shape
    hidden, joined = len(write[4]), (size if isinstance(memory.join, MLPJoin) else 3 * size)
    shapes = [
        *((units, size), (units,), (units, query_size), (1, units), (1,)),
        *((2 * size, size), (2 * size,), (2 * size, query_size)),
        *((hidden, 2 * size + reals), (hidden,), (joined, hidden), (joined,)),
    ]
    return reals <= size and [tuple(weight.shape) for weight in (*search, *write)] == shapes


class _Prepared:
    """The weights of a memory for compiled loops."""

    def __init__(self, memory: HierarchicalAttentiveMemory) -> None:
        from lightning_ham.engines.kernels import access

        (units, query_size), size = memory.search.query.weight.shape, memory.leaf_size
        write = write_parameters(memory)
        of_join = write[3].shape[0], write[3].shape[1], write[5].shape[0]
        self.search = _Weights(
            memory, ("search",), search_parameters(memory.search), (units, query_size), access.attend_at
        )
        sizes = (size, query_size, *of_join, int(grid_steps(memory)))
        self.write = _Weights(memory, ("join", "write_leaf"), write, sizes, access.write_at)
        self.leaf_size, self.query_size, self.dtype = size, query_size, write[0].dtype
        self._none = torch.empty(0, 0)

    def no_weights(self, batch: int) -> Tensor:
        """Return a tensor ``[batch, 0]``, the previous one if it has this shape."""
        none = self._none
        if len(none) != batch:
            with torch.inference_mode(mode=False):
                none = self._none = torch.empty(batch, 0, dtype=self.dtype)
        return none


class _Weights:
    """The weights of some of a memory's modules, valid until a module changes.

    Args:
        memory: The memory.
        names: Names of the modules.
        parameters: Their parameters, in the order that ``loops`` expects.
        sizes: Numbers that follow the parameters' addresses in the table.
        loops: The compiled function that takes this table.
    """

    def __init__(
        self,
        memory: HierarchicalAttentiveMemory,
        names: Sequence[str],
        parameters: Sequence[Tensor],
        sizes: Sequence[int],
        loops: Any,
    ) -> None:
        self._parts = [(name, getattr(memory, name)) for name in names]
        self._modules = PlainModules(*(module for _, module in self._parts))
        self._grid = memory.grid
        join = memory.join if "join" in names else None
        self._copied = join if isinstance(join, ChoiceJoin) else None
        sources = [*parameters[:5], self._copied.out.weight, self._copied.out.bias] if self._copied else parameters
        self._share_memory = not self._modules.has_parametrizations and all(
            isinstance(parameter, nn.Parameter) and parameter.is_contiguous() for parameter in sources
        )
        self._arrays = arrays(*parameters)  # keeps the memory at their addresses allocated
        if self._copied:
            from lightning_ham.engines.kernels import access

            self._out, self._repeat = arrays(self._copied.out.weight, self._copied.out.bias), access.repeat_side
        self.table = np.array([*(array.ctypes.data for array in self._arrays), *sizes], np.int64)
        self.like = np.empty(0, self._arrays[0].dtype)
        self.loops, self.leaf_size = loops, memory.leaf_size

    def are_current(self, memory: HierarchicalAttentiveMemory) -> bool:
        """Return whether these are still the memory's weights; if so, update the copy of JOIN's output layer."""
        if not self._share_memory or memory.grid != self._grid:
            return False
        found = vars(memory)["_modules"]
        for name, module in self._parts:
            if found.get(name) is not module or vars(module).get("grid", self._grid) != self._grid:
                return False
        if not self._modules.are_unchanged():
            return False
        if self._copied is not None:
            self._copy_output_layer(self._copied)
        return True

    def _copy_output_layer(self, join: ChoiceJoin) -> None:
        """Copy JOIN's output layer in the form of compiled loops, as it may have changed in place."""
        self._repeat(*self._out, np.full(1, join.sharpness, self.like.dtype), *self._arrays[-2:])


def attend(
    w: _Weights, tree: Tree, query: Tensor, noise: Tensor | None, batch: int, depth: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return read, leaves, logits, path and siblings as in :class:`Access`.

    Args:
        w: SEARCH's weights.
        tree: The memory's state.
        query: The controller's state, ``[batch, query_size]``.
        noise: Added to the logits, ``[batch, depth]``; None for none.
        batch: Number of trees.
        depth: Their depth.

    Raises:
        ValueError: If the noise has another shape, or another type than the nodes.
    """
    nodes, size = tree.nodes, w.leaf_size
    if noise is None:
        address = 0
    elif noise.shape == (batch, depth) and noise.dtype == nodes.dtype and noise.is_cpu:
        noise = noise.contiguous()
        address = noise.data_ptr()
    else:
        raise ValueError(f"Expected noise of shape {[batch, depth]}, but got {list(noise.shape)}, {noise.dtype}.")
    query = query if query.is_contiguous() else query.contiguous()
    dtype = w.like.dtype
    leaf = np.empty(batch, np.int64)
    logits = np.empty((batch, depth), dtype)
    path = np.empty((batch, depth + 1, size), dtype)
    siblings = np.empty((batch, depth, size), dtype)
    arguments = nodes.data_ptr(), query.data_ptr(), address, w.table, leaf, logits, path, siblings
    if _first_attend.is_over:
        w.loops(*arguments)
    else:
        with _first_attend():
            w.loops(*arguments)
    share = torch.from_numpy
    return share(path[:, depth]), share(leaf), share(logits), share(path), share(siblings)


def write_in_place(w: _Weights, tree: Tree, leaf: Tensor, query: Tensor, batch: int, depth: int) -> bool:
    """Write to leaves of ``tree`` in place and re-join their ancestors; return False if an index is out of range.

    Args:
        w: The weights of WRITE and JOIN.
        tree: The memory's state, which is changed.
        leaf: Index of the leaf, ``[batch]``.
        query: The controller's state, ``[batch, query_size]``.
        batch: Number of trees.
        depth: Their depth.
    """
    query = query if query.is_contiguous() else query.contiguous()
    leaf = leaf if leaf.is_contiguous() else leaf.contiguous()
    arguments = tree.nodes.data_ptr(), batch, depth, leaf.data_ptr(), query.data_ptr(), w.table, w.like
    if _first_write.is_over:
        is_written = bool(w.loops(*arguments))
    else:
        with _first_write():
            is_written = bool(w.loops(*arguments))
    if is_written and not tree.nodes.is_inference():  # so that autograd notices the change
        torch.autograd.graph.increment_version(tree.nodes)
    return is_written


def search_parameters(search: Search) -> tuple[Tensor, ...]:
    """Return SEARCH's parameters in the order that compiled loops expect."""
    return search.node.weight, search.node.bias, search.query.weight, search.out.weight, search.out.bias


def write_parameters(memory: HierarchicalAttentiveMemory) -> tuple[Tensor, ...]:
    """Return the parameters of WRITE and JOIN in the order that compiled loops expect."""
    write = memory.write_leaf
    return write.leaf.weight, write.leaf.bias, write.query.weight, *memory.join.layer_weights


def grid_steps(memory: HierarchicalAttentiveMemory) -> Any:
    """Return 1 / ``grid`` of a memory in the type of its nodes; 0 if it has no grid."""
    return memory.embed.blank.new_tensor(1 / memory.grid if memory.grid else 0.0).numpy()[()]


def arrays(*tensors: Tensor) -> list[Any]:
    """Return tensors as arrays, which share their memory if possible."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
