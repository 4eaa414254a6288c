"""Whole episodes of a cell and its memory, forward and backward, for a few lanes (episodes of a batch) at a time.

The mathematics is that of :mod:`lightning_ham.memory` and :mod:`lightning_ham.engines.episodes`; the derivatives are
written out, each next to its forward: :mod:`.join`, :mod:`.search`, :mod:`.write`, :mod:`.lstm`, :mod:`.build`. Trees
are changed in place: forward records what an access overwrites, and backward restores it. So an access only costs its
path. Shapes are those of :mod:`.record`.
"""

from __future__ import annotations

import numpy as np

from lightning_ham.engines.kernels.arithmetic import accumulate, add_column_sums, affine, compiled
from lightning_ham.engines.kernels.build import build, build_backward
from lightning_ham.engines.kernels.join import join, join_backward, with_sibling, with_sibling_backward
from lightning_ham.engines.kernels.lstm import step_cell, step_cell_backward
from lightning_ham.engines.kernels.place import worths
from lightning_ham.engines.kernels.rows import gather, path_rows, scales, scatter, take
from lightning_ham.engines.kernels.search import branch_gradients, descend, node_backward, search_backward
from lightning_ham.engines.kernels.write import write, write_backward


@compiled
def forward(first, last, w, options, noise, record):
    """Run the episodes of the lanes ``first`` to ``last`` (excluded), given an :func:`empty_record` of leaves."""
    lanes = last - first
    accesses, _, depth = record.logits.shape
    dtype = record.nodes.dtype
    num_leaves, size = record.nodes.shape[1] // 2, record.nodes.shape[2]
    units, controller = record.keys.shape[2], record.hidden.shape[2]
    nodes, keys = record.nodes[first:last], record.keys[first:last]
    pair, node, key = (
        np.empty((lanes, w.join_hidden.shape[0]), dtype),
        np.empty((lanes, size), dtype),
        np.empty((lanes, units), dtype),
    )
    cell_input, write_input = np.empty((lanes, w.cell.shape[0]), dtype), np.empty((lanes, size + controller), dtype)
    no_bias = np.zeros(units, dtype)
    width = w.join_out.shape[1]
    join_scale = scales(lanes, width, 2 * size if options.gated else 0, width, dtype)
    write_scale = scales(lanes, 2 * size, size, 2 * size, dtype)
    cell_scale = scales(lanes, 4 * controller, 2 * controller, 3 * controller, dtype)
    ends, rows = np.empty((lanes, depth + 1), np.int64), np.empty((depth + 1, lanes), np.int64)
    build(first, last, w, options, join_scale, record, pair, node, key)
    for t in range(accesses):
        kept = t if options.keep else 0
        before, after = (t, t + 1) if options.keep else (t % 2, (t + 1) % 2)
        hidden, state = record.hidden[t, first:last], record.hidden[t if options.given else t + 1, first:last]
        query, read = record.queries[kept, first:last], record.reads[t, first:last]
        # Attend and read
        affine(hidden, w.search_query, no_bias, query)
        for a in range(lanes):
            descend(keys[a], query[a], w, options, noise[t, first + a], depth, record.logits[t, first + a], ends[a])
            record.leaves[t, first + a] = ends[a, 0] - num_leaves
            if options.counterfactual:
                for level in range(depth):
                    record.other_leaves[kept, first + a, level] = ends[a, 1 + level]
        path_rows(ends[:, 0], depth, rows)
        gather(nodes, rows[depth], read)
        for level in range(depth + 1):
            gather(nodes, rows[level], record.old_nodes[kept, level, first:last])
        for level in range(depth):
            gather(keys, rows[level], record.old_keys[kept, level, first:last])
        # Step the cell
        if not options.given:
            gates, memory = record.cell_gates[kept, first:last], record.memory[before, first:last]
            step_cell(read, hidden, memory, w, cell_scale, cell_input, gates, record.memory[after, first:last], state)
        # Write and re-join, but not in the last access: nobody reads it
        if t == accesses - 1:
            continue
        write(
            read,
            state,
            w,
            options,
            pair.shape[1] - 2 * size,
            write_scale,
            write_input,
            record.write_gates[kept, first:last],
            node,
        )
        scatter(node, rows[depth], nodes)
        for level in range(depth - 1, -1, -1):
            with_sibling(node, nodes, rows[level + 1], pair)
            hidden_units, gates = (
                record.join_hidden[kept, level, first:last],
                record.join_gates[kept, level, first:last],
            )
            join(pair, w, options, join_scale, hidden_units, gates, node)
            affine(node, w.search_node, w.search_node_bias, key)
            scatter(node, rows[level], nodes)
            scatter(key, rows[level], keys)


@compiled
def backward(first, last, block, w, w_t, options, noise, record, gradients):
    """Set the gradients of leaves and given queries, and add to the weights', for the lanes ``first`` to ``last``.

    Args:
        first: First lane.
        last: Lane after the last.
        block: Index of these lanes in the weights' gradients.
        w: Weights.
        w_t: Their matrices transposed, ``[out, in]``.
        options: As in :func:`forward`.
        noise: As in :func:`forward`.
        record: Results of :func:`forward`; not changed.
        gradients: Gradients of these results, and those to compute.
    """
    w_grad, dlogits = gradients.weights, gradients.logits
    lanes = last - first
    accesses, _, depth = record.logits.shape
    dtype = record.nodes.dtype
    zero = dtype.type(0)
    num_leaves, size = record.nodes.shape[1] // 2, record.nodes.shape[2]
    units, controller = record.keys.shape[2], record.hidden.shape[2]
    nodes = record.nodes[first:last].copy()
    dnodes, dkeys = np.zeros_like(nodes), np.zeros((lanes, num_leaves, units), dtype)
    dstate, dmemory = np.zeros((lanes, controller), dtype), np.zeros((lanes, controller), dtype)
    path, dpath = np.empty((depth + 1, lanes, size), dtype), np.empty((depth + 1, lanes, size), dtype)
    dpath_keys = np.empty((depth, lanes, units), dtype)
    seen = w.join_hidden.shape[0]
    pair, dpair = np.empty((lanes, seen), dtype), np.empty((lanes, seen), dtype)
    dgates = np.empty((lanes, record.join_gates.shape[3]), dtype)
    dunits = np.empty((lanes, record.join_hidden.shape[3]), dtype)
    write_input, dwrite_input = np.empty((lanes, size + controller), dtype), np.empty((lanes, size + controller), dtype)
    dwrite_gates, dcell_gates = np.empty((lanes, 2 * size), dtype), np.empty((lanes, 4 * controller), dtype)
    cell_input, dcell_input = np.empty((lanes, w.cell.shape[0]), dtype), np.empty((lanes, w.cell.shape[0]), dtype)
    dleaf, dread, dquery = (
        np.empty((lanes, size), dtype),
        np.empty((lanes, size), dtype),
        np.empty((lanes, units), dtype),
    )
    dlogit, squashed = np.empty(lanes, dtype), np.empty((lanes, controller), dtype)
    rows = np.empty((depth + 1, lanes), np.int64)
    before_state = dcell_input.shape[1] - controller
    worth, place, dplace = np.zeros((depth + 1, lanes), dtype), np.empty(lanes, dtype), np.empty((lanes, units), dtype)
    share, query_share, one = dtype.type(options.place_share), dtype.type(options.query_share), dtype.type(1)
    width = record.join_gates.shape[3]
    join_scale = scales(lanes, width, 2 * size if options.gated else 0, width, dtype)
    write_scale = scales(lanes, 2 * size, size, 2 * size, dtype)
    for t in range(accesses - 1, -1, -1):
        hidden, state = record.hidden[t, first:last], record.hidden[t if options.given else t + 1, first:last]
        query, read = record.queries[t, first:last], record.reads[t, first:last]
        leaf_rows = record.leaves[t, first:last] + num_leaves
        path_rows(leaf_rows, depth, rows)
        if options.given:
            dstate[:] = zero
        else:
            for a in range(lanes):
                for i in range(controller):
                    dstate[a, i] += gradients.hidden[t, first + a, i]
        dleaf[:] = zero
        if t < accesses - 1:  # the last access wrote nothing
            # Take the nodes that this access wrote and their gradients, and restore the nodes that it overwrote.
            for level in range(depth + 1):
                gather(nodes, rows[level], path[level])
                take(dnodes, rows[level], dpath[level])
                scatter(record.old_nodes[t, level, first:last], rows[level], nodes)
            for level in range(depth):
                take(dkeys, rows[level], dpath_keys[level])
            # Re-join
            for level in range(depth):
                node_backward(path[level], dpath[level], dpath_keys[level], w_t, w_grad, block)
                with_sibling(path[level + 1], nodes, rows[level + 1], pair)
                hidden_units, gates = record.join_hidden[t, level, first:last], record.join_gates[t, level, first:last]
                join_backward(
                    pair, hidden_units, gates, dpath[level], w_t, options.gated, w_grad, block, dpair, dgates, dunits
                )
                with_sibling_backward(dpair, rows[level + 1], dpath[level + 1], dnodes)
            if options.through_write:
                worths(
                    first, t, w, w_t, options, record, rows, nodes, dnodes, dkeys, state, read, dpath[depth],
                    join_scale, write_scale, worth,
                )  # fmt: skip
            # Write
            write_backward(
                read, state, record.write_gates[t, first:last], dpath[depth], w_t, w_grad, block, query_share,
                write_input, dwrite_input, dwrite_gates, dleaf, dstate,
            )  # fmt: skip
        # Step the cell
        if options.given:
            for a in range(lanes):
                for i in range(size):
                    dread[a, i] = gradients.reads[t, first + a, i]
                    dleaf[a, i] += dread[a, i]
        else:
            memory_before, memory_after = record.memory[t, first:last], record.memory[t + 1, first:last]
            gates = record.cell_gates[t, first:last]
            step_cell_backward(
                read, hidden, memory_before, gates, memory_after, w_t, w_grad, block, dstate, dmemory, squashed,
                cell_input, dcell_input, dcell_gates,
            )  # fmt: skip
            for a in range(lanes):
                for i in range(controller):
                    dstate[a, i] = dcell_input[a, before_state + i]
                for i in range(size):
                    dread[a, i] = dcell_input[a, i] + gradients.reads[t, first + a, i]
                    dleaf[a, i] += dread[a, i]
        # Read and attend
        for a in range(lanes):
            for i in range(size):
                dnodes[a, leaf_rows[a], i] += dleaf[a, i]
        dquery[:] = zero
        for level in range(depth):
            branch_gradients(
                first, t, level, depth, leaf_rows, nodes, dread, worth, dlogits, options, noise, record, dlogit, place
            )
            for a in range(lanes):
                w_grad.search_out_bias[block, 0] += dlogit[a] + place[a]
            path_keys = record.old_keys[t, level, first:last]
            dout = w_grad.search_out[block]
            search_backward(
                path_keys,
                rows[level],
                query,
                dlogit,
                place,
                share,
                options.through_write,
                w,
                dout,
                dkeys,
                dquery,
                dplace,
            )
            if options.through_write:
                accumulate(record.old_nodes[t, level, first:last].T, dplace, w_grad.search_node[block])
                add_column_sums(dplace, w_grad.search_node_bias[block])
        accumulate(hidden.T, dquery, w_grad.search_query[block])
        if query_share != one:
            for a in range(lanes):
                for u in range(units):
                    dquery[a, u] *= query_share
        if query_share != zero:
            accumulate(dquery, w_t.search_query, dstate)
        if options.given:
            for a in range(lanes):
                for i in range(controller):
                    gradients.queries[t, first + a, i] = dstate[a, i]
    build_backward(first, last, w_t, options, record, nodes, dnodes, dkeys, w_grad, block)
    gradients.leaves[first:last] = dnodes[:, num_leaves:]
