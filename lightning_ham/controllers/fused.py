"""The ``fused`` engine: whole episodes as one operation of autograd, run by compiled loops on the CPU."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_ham.kernels.first_use import FirstUse
from lightning_ham.memory import AttentionMode, HierarchicalAttentiveMemory, fused
from lightning_ham.memory.attention import COUNTERFACTUAL_MODES, PLACE_SHARE
from lightning_ham.memory.transforms import MLPJoin

if TYPE_CHECKING:
    from lightning_ham.kernels.episode import Options, Weights

LANES = 64
"""Episodes that a thread runs together: enough for products of some size, few enough to stay in its cache. Sums over
a batch are taken lane by lane and then block by block, so the number of threads does not change what comes out."""


def obstacle(
    memory: HierarchicalAttentiveMemory,
    cell: nn.LSTMCell | None,
    leaves: Tensor,
    attention: AttentionMode,
    read_root: bool = False,
    queries: Tensor | None = None,
) -> str | None:
    """Return what keeps the fused engine from running these episodes, of a cell or with given queries, if anything."""
    if attention == "soft":
        return "attention 'soft' visits every leaf"
    replaced = memory.replaced("attend", "write")
    if replaced:
        return f"it does not know what {type(memory).__name__}.{replaced} does"
    modules = (memory.join, memory.search, memory.write_leaf, *([cell] if cell else []))
    obstacle = fused.obstacle(leaves, *modules)
    if obstacle:
        return obstacle
    query_size = memory.search.query.in_features
    fits = leaves.shape[2] == memory.leaf_size
    if cell:
        fits &= (cell.input_size, cell.hidden_size) == (memory.leaf_size * (2 if read_root else 1), query_size)
    if queries is not None:
        fits &= (queries.shape[0], queries.shape[2], queries.dtype) == (leaves.shape[0], query_size, leaves.dtype)
    return None if fits else "leaves, memory and cell or queries do not fit together"  # compiled loops check no bounds


def run_episodes(
    memory: HierarchicalAttentiveMemory,
    cell: nn.LSTMCell,
    leaves: Tensor,
    noise: Tensor,
    *,
    attention: AttentionMode,
    read_root: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend, read, step the cell, write and re-join, in compiled loops.

    Args:
        memory: The memory.
        cell: Its input is the value read, and the root of the tree behind it if ``read_root``.
        leaves: The tree's leaves at first, ``[batch, num_leaves, leaf_size]``.
        noise: Of each access, from :func:`lightning_ham.memory.attention.draw_noise`, ``[accesses, batch, count]``.
        attention: One of the hard modes.
        read_root: Whether the cell also sees the root.

    Returns:
        The cell's state after each access, ``[accesses, batch, controller_size]``; the values read, ``[accesses, batch,
        leaf_size]``; SEARCH along the paths, ``[accesses, batch, depth]``; the attended leaves, ``[accesses, batch]``.
    """
    options = _options(memory, noise, attention, read_root=read_root, given=False)
    none = leaves.new_empty(0, len(leaves), cell.hidden_size)
    episodes: tuple[Tensor, Tensor, Tensor, Tensor] = _Episodes.apply(
        leaves, none, noise, options, *_pack(memory, cell)
    )  # type: ignore[no-untyped-call]
    return episodes


def run_queries(
    memory: HierarchicalAttentiveMemory, queries: Tensor, leaves: Tensor, noise: Tensor, *, attention: AttentionMode
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend, read, write and re-join with each of the queries, in compiled loops.

    Args:
        memory: The memory.
        queries: Of each access, ``[accesses, batch, query_size]``.
        leaves: As for :func:`run_episodes`, like all that follows.
        noise: Of each access.
        attention: One of the hard modes.

    Returns:
        The values read, SEARCH along the paths, and the attended leaves, shaped as those of :func:`run_episodes`.
    """
    options = _options(memory, noise, attention, read_root=False, given=True)
    _, *episodes = _Episodes.apply(leaves, queries, noise, options, *_pack(memory, None))  # type: ignore[no-untyped-call]
    reads, logits, attended = episodes
    return reads, logits, attended


def _options(
    memory: HierarchicalAttentiveMemory, noise: Tensor, attention: AttentionMode, *, read_root: bool, given: bool
) -> Options:
    from lightning_ham.kernels.episode import Options

    return Options(
        gated=not isinstance(memory.join, MLPJoin),
        read_root=read_root,
        sampled=noise.shape[2] > 0,
        counterfactual=attention in COUNTERFACTUAL_MODES,
        through_write=attention == "straight_through_write",
        given=given,
        temperature=memory.temperature,
        place_share=PLACE_SHARE,
        query_share=memory.query_share if attention in COUNTERFACTUAL_MODES else 1.0,
        keep=torch.is_grad_enabled(),
    )


def _pack(memory: HierarchicalAttentiveMemory, cell: nn.LSTMCell | None) -> Weights:
    """Return the parameters as the kernels want them, as tensors that carry gradients."""
    from lightning_ham.kernels.episode import Weights

    search, write = memory.search, memory.write_leaf
    join_hidden, join_hidden_bias, join_out, join_out_bias = memory.join.layer_weights
    cell_weight = search.query.weight.new_zeros(search.query.in_features, 0)
    cell_bias = cell_weight.new_zeros(0)
    if cell:
        cell_weight = torch.cat((cell.weight_ih, cell.weight_hh), dim=1).t()
        cell_bias = cell.bias_ih + cell.bias_hh if cell.bias else cell_weight.new_zeros(4 * cell.hidden_size)
    return Weights(
        join_hidden=join_hidden.t(),
        join_hidden_bias=join_hidden_bias,
        join_out=join_out.t(),
        join_out_bias=join_out_bias,
        search_node=search.node.weight.t(),
        search_node_bias=search.node.bias,
        search_query=search.query.weight.t(),
        search_out=search.out.weight.flatten(),
        search_out_bias=search.out.bias,
        write=torch.cat((write.leaf.weight, write.query.weight), dim=1).t(),
        write_bias=write.leaf.bias,
        cell=cell_weight,
        cell_bias=cell_bias,
    )


class _Episodes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, leaves: Tensor, queries: Tensor, noise: Tensor, options: Options, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        from lightning_ham.kernels import episode

        w = _arrays(weights)
        noises = noise.contiguous().numpy()
        record, workspace = episode.empty_record(leaves.detach().numpy(), len(noises), w, keep=options.keep)
        record.hidden[: len(queries)] = queries.detach().numpy()
        _for_blocks(len(leaves), lambda _, first, last: episode.forward(first, last, w, options, noises, record))
        ctx.episode = w, options, noises, record, workspace
        hidden, reads, logits, attended = map(
            torch.from_numpy, (record.hidden[1:], record.reads, record.logits, record.leaves)
        )
        ctx.mark_non_differentiable(attended)
        # The arrays share their memory; so autograd refuses to go back if one has been changed since.
        ctx.save_for_backward(hidden, reads, logits, attended, *weights)
        return hidden, reads, logits, attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from lightning_ham.kernels import episode

        _ = ctx.saved_tensors  # raises if one has been changed, or freed
        w, options, noises, record, _ = ctx.episode
        dhidden, dreads, dlogits = (grad.contiguous().numpy() for grad in grads[:3])
        batch, num_leaves, size = record.nodes.shape[0], record.keys.shape[1], record.nodes.shape[2]
        transposed = _arrays(torch.from_numpy(matrix).t() for matrix in w)
        blocks = max(1, -(-batch // LANES))
        weights_grad = [torch.zeros(blocks, *matrix.shape, dtype=grads[0].dtype) for matrix in w]
        leaves_grad = torch.empty(batch, num_leaves, size, dtype=grads[0].dtype)
        w_grad, dleaves = _arrays(weights_grad), leaves_grad.numpy()
        queries_grad = torch.empty(
            len(noises) if options.given else 0, batch, record.hidden.shape[2], dtype=grads[0].dtype
        )
        dqueries = queries_grad.numpy()

        def run(block: int, first: int, last: int) -> None:
            episode.backward(
                first, last, block, w, transposed, options, noises, record, dhidden, dreads, dlogits, w_grad, dleaves,
                dqueries,
            )  # fmt: skip

        _for_blocks(batch, run)
        # One after the other: how PyTorch orders a sum may depend on its threads.
        sums = (functools.reduce(torch.add, grad) for grad in weights_grad)
        return leaves_grad, queries_grad, None, None, *sums


def _arrays(weights: Any) -> Weights:
    from lightning_ham.kernels.episode import Weights

    return Weights(*(weight.detach().contiguous().numpy() for weight in weights))


def set_num_threads(threads: int, *, compiled: bool) -> None:
    """Have training and evaluation use ``threads`` CPU threads.

    PyTorch's own threads wait for their next work by spinning, and would take the cores from the compiled loops between
    two operations. So where most of the work is done by those (``compiled``), they get the threads, and PyTorch one.
    Then the number of threads changes no bit of a result; it does where PyTorch divides its products among several.
    """
    global _threads
    _threads = threads
    torch.set_num_threads(1 if compiled else threads)


def get_num_threads() -> int:
    """Return how many CPU threads training and evaluation use: as many as PyTorch, unless they were set."""
    return _threads or torch.get_num_threads()


_threads: int | None = None


def compile_seconds() -> float:
    """Return how long this process has compiled loops since this was asked for the first time; 0 without Numba.

    The first time imports Numba, which takes a second.
    """
    if importlib.util.find_spec("numba") is None:
        return 0.0
    from lightning_ham.kernels.compile_time import COMPILE_TIME

    return COMPILE_TIME.seconds


def _for_blocks(batch: int, run: Callable[[int, int, int], None]) -> None:
    """Call ``run(block, first, last)`` for every block of lanes."""
    blocks = [(block, first, min(first + LANES, batch)) for block, first in enumerate(range(0, batch, LANES))]
    threads = min(get_num_threads(), len(blocks))
    with _first_use():
        if threads <= 1:
            for block in blocks:
                run(*block)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda block: run(*block), blocks))


_first_use = FirstUse("Compiling the training loops for this machine; this takes about a minute, once.")
