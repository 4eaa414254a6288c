"""Check a certificate: ``python checker.py certificate.json model.safetensors``.

This file needs NumPy only. It checks every claim anew, without trusting the program that made the certificate:

1. The certificate is of these weights.
2. The leaves hold the blank one, and all that a push or a pop writes to one of them; what a pop reads comes out.
3. Every level holds JOIN of all pairs of the level below that can be siblings, with the parents' meaning. The highest
   level has the same rows as an earlier one, so that all levels above repeat.
4. At every value, every operation that can come there takes the branch that the meaning asks for.
5. Every number that is rounded, every branch and every output bit is further from its boundary than float32 may err.

docs/certificates.md tells why this proves the data structure right in trees of every depth.
"""

import base64
import hashlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np

VALUES, PAIRS = 32, 1024  # different values, and different pairs of priority and value
UNIT, ACTIVATION = 2.0**-24, 1e-6  # errors of one operation in float32, and of its logistic function and tanh
CHUNK = 1 << 15
MLP = ("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")
GATED = ("hidden.weight", "hidden.bias", "out.weight", "out.bias")


class Refused(Exception):
    """The certificate does not hold."""


def require(condition, message):
    if not condition:
        raise Refused(message)


def read_weights(content):
    """Return the arrays of a safetensors file in float64."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            kind = {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]
            start, end = entry["data_offsets"]
            data = np.frombuffer(content[8 + length + start : 8 + length + end], kind)
            arrays[name.removeprefix("controller.")] = data.reshape(entry["shape"]).astype(np.float64)
    return arrays


def read_table(entry):
    data = zlib.decompress(base64.b64decode(entry["int16, deflated"]))
    return np.frombuffer(data, "<i2").reshape(entry["shape"]).astype(np.int64)


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def gamma(terms):
    """Bound of the relative error of a sum of products in float32, in any order."""
    return (terms + 2) * UNIT / (1 - (terms + 2) * UNIT)


def perceptron_bound(layers, most):
    """Bound of the errors of out @ relu(hidden @ x + hidden_bias) + out_bias for |x| <= most."""
    hidden, hidden_bias, out, out_bias = layers
    size = np.abs(hidden) @ most + np.abs(hidden_bias)
    error = gamma(hidden.shape[1]) * size
    return np.abs(out) @ error + gamma(out.shape[1]) * (np.abs(out) @ (size + error) + np.abs(out_bias))


class Network:
    """The transformations of the memory, on multiples of the grid."""

    def __init__(self, weights, grid):
        self.w, self.grid = weights, grid
        require(grid > 0 and np.frexp(grid)[0] == 0.5, "the grid is not a power of two")
        self.least = {"rounding": np.inf, "branch": np.inf, "output": np.inf}
        self.blank = self.rounded(weights["memory.embed.blank"], 0.0)
        self.size = len(self.blank)
        self.most = np.maximum(np.abs(self.blank * grid), 1.0)
        names = MLP if "memory.join.mlp.0.weight" in weights else GATED
        self.join_hidden, self.join_bias, out, bias = self.part("memory.join", *names)
        if len(out) == 1 + 2 * self.size:  # one gate for all numbers chooses between the children
            out = np.concatenate((np.repeat(out[:1] * self.size**0.5, self.size, 0), out[1:]))
            bias = np.concatenate((np.repeat(bias[:1] * self.size**0.5, self.size), bias[1:]))
        self.join_out, self.join_out_bias = out, bias
        require(len(out) in (self.size, 3 * self.size), "JOIN has an unknown shape")

    def part(self, part, *names):
        return [self.w[f"{part}.{name}"] for name in names]

    def margin(self, kind, values):
        if np.size(values):
            least = float(np.min(values))
            self.least[kind] = min(self.least[kind], least)
            require(least > 0, f"a {kind} has no margin against the errors of float32")

    def rounded(self, raw, bound):
        scaled = raw / self.grid
        steps = np.rint(scaled)
        self.margin("rounding", (0.5 - np.abs(scaled - steps)) * self.grid - bound)
        return steps.astype(np.int64)

    def embed(self, cells):
        layers = self.part("memory.embed", *MLP)
        raw = np.maximum(cells @ layers[0].T + layers[1], 0) @ layers[2].T + layers[3]
        self.queries = self.rounded(raw, perceptron_bound(layers, np.ones(cells.shape[1])))
        self.most_query = np.abs(self.queries).max(0) * self.grid
        return self.queries

    def write(self, leaves, queries):
        w, bias, of_query = self.part("memory.write_leaf", "leaf.weight", "leaf.bias", "query.weight")
        old = leaves * self.grid
        gate, value = np.split(old @ w.T + queries * self.grid @ of_query.T + bias, 2, axis=-1)
        size = np.abs(w) @ self.most + np.abs(of_query) @ self.most_query + np.abs(bias)
        gate_error, value_error = np.split(gamma(2 * self.size + 1) * size, 2)
        most = self.most + 1
        bound = most * (gate_error / 4 + ACTIVATION) + value_error + ACTIVATION + 8 * UNIT * most
        return self.rounded(old + sigmoid(gate) * (np.tanh(value) - old), bound)

    def join(self, left, right, hidden):
        out = np.maximum(hidden + self.join_bias, 0) @ self.join_out.T + self.join_out_bias
        both = np.concatenate((self.most, self.most))
        error = perceptron_bound((self.join_hidden, self.join_bias, self.join_out, self.join_out_bias), both)
        if len(error) == self.size:
            return self.rounded(np.tanh(out), error + ACTIVATION)
        side, new, candidate = np.split(out, 3, axis=-1)
        side_error, new_error, candidate_error = np.split(error, 3)
        chosen = left * self.grid + sigmoid(side) * (right - left) * self.grid
        most = self.most + 1
        bound = 2 * self.most * (side_error / 4 + ACTIVATION) + most * (new_error / 4 + ACTIVATION)
        bound += candidate_error + ACTIVATION + 16 * UNIT * most
        return self.rounded(chosen + sigmoid(new) * (np.tanh(candidate) - chosen), bound)

    def check_branches(self, nodes, queries, branch):
        """Check that every query goes right (1) or left (0) at all nodes, with a margin."""
        names = ("node.weight", "node.bias", "query.weight", "out.weight", "out.bias")
        node, node_bias, query, out, bias = self.part("memory.search", *names)
        most = np.concatenate((self.most, self.most_query))
        bound = perceptron_bound((np.concatenate((node, query), axis=1), node_bias, out, bias), most)
        of_queries = queries * self.grid @ query.T
        step = max(1, CHUNK // len(queries))
        for i in range(0, len(nodes), step):
            of_nodes = nodes[i : i + step] * self.grid @ node.T + node_bias
            logits = np.maximum(of_nodes[:, None] + of_queries, 0) @ out[0] + bias
            self.margin("branch", (logits if branch else -logits) - bound)

    def check_outputs(self, leaves, values):
        layers = self.part("head", "0.weight", "0.bias", "2.weight", "2.bias")
        logits = np.maximum(leaves * self.grid @ layers[0].T + layers[1], 0) @ layers[2].T + layers[3]
        bound = perceptron_bound(layers, self.most)
        wanted = values[:, None] >> np.arange(4, -1, -1) & 1
        self.margin("output", np.where(wanted == 1, logits[:, :5], -logits[:, :5]) - bound[:5])


class Order:
    """Stack: leaves are taken (1), then freed (2), then blank (4). Queue: spent (1), then taken (2), then blank (4)."""

    def __init__(self, task):
        self.is_stack, self.pushes = task == "stack", VALUES
        self.taken, self.freed, self.blank = (1, 2, 4) if self.is_stack else (2, 1, 4)

    def pushed(self, push):
        return self.taken

    def is_free(self, meaning):
        return meaning == self.blank or (self.is_stack and meaning == self.freed)

    def parents(self, left, right):
        """Meanings of parents, where a push and a pop go (-1: they never come), and which pairs can be siblings."""
        highest = np.where(left & 4, 4, np.where(left & 2, 2, 1))
        lowest = np.where(right & 1, 1, np.where(right & 2, 2, 4))
        free = self.blank | (self.freed if self.is_stack else 0)
        push = np.where(left & free, 0, np.where(right & free, 1, -1))
        if self.is_stack:
            pop = np.where(right & self.taken, 1, np.where(left & self.taken, 0, -1))
        else:
            pop = np.where(left & self.taken, 0, np.where(right & self.taken, 1, -1))
        return left | right, push, pop, highest <= lowest


class Priority:
    """Twice the least pair (1,024: none), plus 1 if a leaf is free."""

    pushes, blank, freed = PAIRS, 2 * PAIRS + 1, 2 * PAIRS + 1

    def pushed(self, push):
        return 2 * push

    def is_free(self, meaning):
        return meaning % 2 == 1

    def parents(self, left, right):
        least = np.minimum(left >> 1, right >> 1)
        push = np.where(left & 1, 0, np.where(right & 1, 1, -1))
        pop = np.where(left >> 1 == right >> 1, -1, right >> 1 < left >> 1)
        return 2 * least + (left & 1 | right & 1), push, pop, np.ones(np.shape(least), bool)


def as_set(rows):
    return np.unique(as_bytes(rows))  # sorted, to look others up in


def as_bytes(rows):
    rows = np.ascontiguousarray(rows, np.int64)
    return rows.view(np.dtype((np.void, 8 * rows.shape[1]))).ravel()


def require_all(rows, known, message):
    found = as_bytes(rows)
    place = np.minimum(np.searchsorted(known, found), len(known) - 1)
    require(len(known) > 0 and bool((known[place] == found).all()), message)


def check_leaves(network, structure, leaves):
    size, known = network.size, as_set(leaves)
    cells = np.zeros((1 + structure.pushes, network.w["memory.embed.mlp.0.weight"].shape[1]))
    cells[0, 0] = 1  # a pop; a push has its operand's bits, the most significant first
    bits = cells.shape[1] - 1
    require(1 << bits == structure.pushes, "the network takes operations of another kind")
    cells[1:, 1:] = np.arange(structure.pushes)[:, None] >> np.arange(bits - 1, -1, -1) & 1
    queries = network.embed(cells)
    require_all(np.r_[network.blank, structure.blank, -1][None], known, "the blank leaf is missing")
    taken = leaves[leaves[:, -1] >= 0]
    network.check_outputs(taken[:, :size], taken[:, -1] % VALUES)
    for row in leaves:
        value, meaning, push = row[:size], row[size], row[-1]
        if push >= 0:
            require(push < structure.pushes and meaning == structure.pushed(push), "a taken leaf has another meaning")
            written = np.column_stack((network.write(value[None], queries[:1]), [structure.freed], [-1]))
        elif structure.is_free(meaning):
            meanings = [structure.pushed(push) for push in range(structure.pushes)]
            written = np.column_stack((network.write(value[None], queries[1:]), meanings, np.arange(len(meanings))))
        else:  # spent: no operation comes to it
            require(meaning == structure.freed, "a leaf has an unknown meaning")
            continue
        require_all(written, known, "a write leads to a leaf that is missing")
    return queries


def check_level(network, structure, below, level):
    """Check that a level holds all parents of the rows below; return the number of pairs."""
    size, known, pairs = network.size, as_set(level), 0
    of_left, of_right = np.split(network.join_hidden, 2, axis=1)
    values, meanings = below[:, :size], below[:, size]
    as_left, as_right = values * network.grid @ of_left.T, values * network.grid @ of_right.T
    step = max(1, CHUNK // len(below))
    for start in range(0, len(below), step):
        rows = np.arange(start, min(start + step, len(below)))
        meaning, push, pop, can_be = np.broadcast_arrays(*structure.parents(meanings[rows, None], meanings[None]))
        i, j = np.nonzero(can_be)
        if len(i):
            parents = network.join(values[rows[i]], values[j], as_left[rows[i]] + as_right[j])
            found = np.column_stack((parents, meaning[i, j], push[i, j], pop[i, j]))
            require_all(found, known, "JOIN leads to a node that is missing, or has another meaning or branch")
            pairs += len(i)
    return pairs


def check(certificate, content):
    """Return the number of pairs and the network with its least margins; raise Refused if any claim is wrong."""
    require(certificate["format"] == 1, "another format")
    digest = hashlib.sha256(content).hexdigest()
    require(digest == certificate["weights_sha256"], "the certificate is of other weights")
    require(certificate["task"] in ("stack", "queue", "priority_queue"), "another data structure")
    structure = Priority() if certificate["task"] == "priority_queue" else Order(certificate["task"])
    network = Network(read_weights(content), float(certificate["grid"]))
    leaves, *levels = map(read_table, (certificate["leaves"], *certificate["levels"]))
    queries = check_leaves(network, structure, leaves)
    below, pairs = leaves[:, :-1], 0
    for level in levels:
        pairs += check_level(network, structure, below[:, : network.size + 1], level)
        for column, of_kind in ((-2, queries[1:]), (-1, queries[:1])):
            for branch in (0, 1):
                network.check_branches(level[level[:, column] == branch, : network.size], of_kind, branch)
        below = level
    repeats = certificate["repeats"]
    require(0 < repeats < len(levels), "no level repeats")
    require(np.array_equal(as_set(levels[-1]), as_set(levels[repeats - 1])), "the levels do not repeat")
    return pairs, network


def main():
    certificate, content = json.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]).read_bytes()
    try:
        pairs, network = check(certificate, content)
    except (Refused, KeyError, ValueError, zlib.error) as error:
        sys.exit(f"refused: {error}")
    margins = ", ".join(f"{kind} {least:.2g}" for kind, least in network.least.items())
    print(f"holds: {certificate['task']} for every capacity, {pairs:,} pairs, least margins: {margins}")


if __name__ == "__main__":
    main()
