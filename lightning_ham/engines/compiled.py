"""Whole episodes as one operation of autograd, run by compiled loops on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_ham.engines.first_use import FirstUse
from lightning_ham.engines.single import grid_steps
from lightning_ham.engines.threads import LANES, for_blocks
from lightning_ham.memory import Estimator, HierarchicalAttentiveMemory
from lightning_ham.memory.attention.straight_through_write import PLACE_SHARE
from lightning_ham.memory.transforms import MLPJoin

if TYPE_CHECKING:
    from lightning_ham.engines.kernels.record import Options, Weights

_first_use = FirstUse("Compiling the training loops for this machine; this takes about a minute, once.")


def run_episodes(
    memory: HierarchicalAttentiveMemory,
    source: nn.LSTMCell | Tensor,
    leaves: Tensor,
    noise: Tensor,
    estimator: Estimator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend, read, step the cell if there is one, write and re-join, in compiled loops.

    Args:
        memory: The memory.
        source: The cell, whose input is the value read and whose states are the queries; or all queries,
            ``[accesses, batch, query_size]``.
        leaves: The initial leaves, ``[batch, num_leaves, leaf_size]``.
        noise: The estimator's noise for each access, ``[accesses, batch, count]``.
        estimator: One that compiled loops support.

    Returns:
        The cell's state after each access, or the queries, ``[accesses, batch, query_size]``; the values read,
        ``[accesses, batch, leaf_size]``; the logits along the paths, ``[accesses, batch, depth]``; the indices of the
        attended leaves, ``[accesses, batch]``.
    """
    cell = source if isinstance(source, nn.LSTMCell) else None
    queries = leaves.new_empty(0, len(leaves), source.hidden_size) if isinstance(source, nn.LSTMCell) else source
    options = _options(memory, noise, estimator, given=cell is None)
    episodes = _Episodes.apply(leaves, queries, noise, options, *_pack(memory, cell))  # type: ignore[no-untyped-call]
    hidden, reads, logits, attended = episodes
    return hidden if cell else queries, reads, logits, attended


def _options(memory: HierarchicalAttentiveMemory, noise: Tensor, estimator: Estimator, *, given: bool) -> Options:
    from lightning_ham.engines.kernels.record import Options

    assert estimator.compiled is not None
    return Options(
        gated=not isinstance(memory.join, MLPJoin),
        sampled=noise.shape[2] > 0,
        counterfactual=estimator.compiled.counterfactual,
        through_write=estimator.compiled.through_write,
        steps=grid_steps(memory),
        given=given,
        place_share=PLACE_SHARE,
        query_share=memory.query_share if estimator.shares_query else 1.0,
        keep=torch.is_grad_enabled(),
    )


def _pack(memory: HierarchicalAttentiveMemory, cell: nn.LSTMCell | None) -> Weights:
    """Return the parameters in the kernels' layout, as tensors that carry gradients."""
    from lightning_ham.engines.kernels.record import Weights

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
        from lightning_ham.engines.kernels import episode
        from lightning_ham.engines.kernels import record as records

        w = _arrays(weights)
        noises = noise.contiguous().numpy()
        record, workspace = records.empty_record(leaves.detach().numpy(), len(noises), w, keep=options.keep)
        record.hidden[: len(queries)] = queries.detach().numpy()
        with _first_use():
            for_blocks(len(leaves), lambda _, first, last: episode.forward(first, last, w, options, noises, record))
        ctx.episode = w, options, noises, record, workspace
        hidden, reads, logits, attended = map(
            torch.from_numpy, (record.hidden[1:], record.reads, record.logits, record.leaves)
        )
        ctx.mark_non_differentiable(attended)
        # The record shares their memory: autograd raises in backward if one has been changed.
        ctx.save_for_backward(hidden, reads, logits, attended, *weights)
        return hidden, reads, logits, attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from lightning_ham.engines.kernels import episode
        from lightning_ham.engines.kernels.record import Gradients, Weights

        _ = ctx.saved_tensors  # raises if one has been changed, or freed
        w, options, noises, record, _ = ctx.episode
        batch, num_leaves, size = record.nodes.shape[0], record.keys.shape[1], record.nodes.shape[2]
        transposed = Weights(*(np.ascontiguousarray(matrix.T) for matrix in w))
        blocks = max(1, -(-batch // LANES))
        weights_grad = Weights(*(np.zeros((blocks, *matrix.shape), matrix.dtype) for matrix in w))
        leaves_grad = torch.empty(batch, num_leaves, size, dtype=grads[0].dtype)
        queries_grad = torch.empty(
            len(noises) if options.given else 0, batch, record.hidden.shape[2], dtype=grads[0].dtype
        )
        hidden, reads, logits = (grad.contiguous().numpy() for grad in grads[:3])
        gradients = Gradients(hidden, reads, logits, weights_grad, leaves_grad.numpy(), queries_grad.numpy())

        def run(block: int, first: int, last: int) -> None:
            episode.backward(first, last, block, w, transposed, options, noises, record, gradients)

        with _first_use():
            for_blocks(batch, run)
        # In the order of the blocks: that of PyTorch's sums may depend on the number of threads.
        sums = (torch.from_numpy(grad.sum(axis=0)) for grad in weights_grad)
        return leaves_grad, queries_grad, None, None, *sums


def _arrays(weights: Any) -> Weights:
    from lightning_ham.engines.kernels.record import Weights

    return Weights(*(weight.detach().contiguous().numpy() for weight in weights))
