"""SEARCH: descents, the gradients of branches, and the keys of nodes.

The key of a node is the part of SEARCH's hidden layer that depends on the node alone. It is computed with the node, so
a visit needs no matrix product.
"""

from __future__ import annotations

from lightning_ham.engines.kernels.arithmetic import accumulate, add_column_sums, compiled, sigmoid


@compiled
def search_at(key, query, w):
    """Return SEARCH at one node, given its key and the query's part, both ``[s]``."""
    total, zero = w.search_out_bias[0], key.dtype.type(0)
    for u in range(key.shape[0]):
        total += w.search_out[u] * max(key[u] + query[u], zero)
    return total


@compiled
def descend(keys, query, w, options, noise, depth, logits, rows):
    """Descend in one lane; set ``rows`` ``[depth + 1]`` to heap rows: the leaf's, then the counterfactual leaves'."""
    rows[0] = 1
    drawn, width = 0, 1
    for level in range(depth):
        for column in range(width):
            logit = search_at(keys[rows[column]], query, w)
            if column == 0:
                logits[level] = logit
            if options.sampled:
                logit += noise[drawn]
                drawn += 1
            rows[column] = 2 * rows[column] + (logit > 0)
        if options.counterfactual:
            rows[width] = rows[0] ^ 1
            width += 1


@compiled
def branch_gradients(
    first, t, level, depth, leaf_rows, nodes, dread, worth, dlogits, options, noise, record, grad, place
):
    """Set the gradient of SEARCH at one level.

    ``grad`` ``[lanes]`` is that of the logits plus the read's straight-through gradient; ``place`` ``[lanes]`` comes
    from ``worth`` ``[depth + 1, lanes]``, the loss that a write adds at the attended and each counterfactual leaf.
    """
    zero, one = dread.dtype.type(0), dread.dtype.type(1)
    for a in range(grad.shape[0]):
        lane = first + a
        grad[a] = dlogits[t, lane, level]
        place[a] = zero
        if options.counterfactual:
            other, leaf = record.other_leaves[t, lane, level], leaf_rows[a]
            along = zero
            for i in range(dread.shape[1]):
                along += dread[a, i] * (nodes[a, leaf, i] - nodes[a, other, i])
            p = sigmoid(record.logits[t, lane, level] + noise[t, lane, level * (level + 1) // 2])
            slope = p * (one - p)
            if not (leaf >> (depth - 1 - level)) & 1:
                slope = -slope
            grad[a] += along * slope
            if options.through_write:
                place[a] = (worth[0, a] - worth[1 + level, a]) * slope


@compiled
def search_backward(path_keys, rows, query, grad, place, share, through_write, w, dout, dkeys, dquery, dplace):
    """Add to the gradients of SEARCH's output weights, of the keys at ``rows`` and of the query's part.

    Args:
        path_keys: The keys at ``rows``, ``[lanes, s]``.
        rows: Heap rows of the nodes, ``[lanes]``.
        query: The query's part, ``[lanes, s]``.
        grad: Gradient of the logits, ``[lanes]``.
        place: Further gradient of the logits, from the place of the write, ``[lanes]``; 0 unless ``through_write``.
        share: Share of ``place`` that the keys get.
        through_write: As in :class:`Options`.
        w: Weights.
        dout: Gradient of SEARCH's output weights, ``[s]``.
        dkeys: Gradient of all keys, ``[lanes, n, s]``.
        dquery: Gradient of ``query``.
        dplace: Set, if ``through_write``, to the gradient withheld from the keys, ``[lanes, s]``.
    """
    zero, one = query.dtype.type(0), query.dtype.type(1)
    lanes, units = query.shape
    for a in range(lanes):
        row, g = rows[a], grad[a]
        both = g + place[a]
        for u in range(units):
            dout[u] += both * max(path_keys[a, u] + query[a, u], zero)
        for u in range(units):
            dquery[a, u] += both * w.search_out[u] if path_keys[a, u] + query[a, u] > zero else zero
        for u in range(units):
            dkeys[a, row, u] += (
                (g + share * place[a]) * w.search_out[u] if path_keys[a, u] + query[a, u] > zero else zero
            )
    if through_write:
        for a in range(lanes):
            left = (one - share) * place[a]
            for u in range(units):
                dplace[a, u] = left * w.search_out[u] if path_keys[a, u] + query[a, u] > zero else zero


@compiled
def node_backward(node, dnode, dkey, w_t, w_grad, block):
    """Add the gradient of a node's key to those of the node and of the weights between them."""
    accumulate(dkey, w_t.search_node, dnode)
    accumulate(node.T, dkey, w_grad.search_node[block])
    add_column_sums(dkey, w_grad.search_node_bias[block])
