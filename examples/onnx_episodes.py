"""Episodes of any exported model in NumPy and ONNX Runtime, without PyTorch: what manifest.json tells in words.

python -m lightning_ham.export ham-reverse --format onnx -o exported && python onnx_episodes.py exported"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


class Episodes:
    """Runs batches of episodes of the model exported to ``folder``."""

    def __init__(self, folder, threads=1):
        self.manifest = json.loads(Path(folder, "manifest.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graphs = self.manifest["graphs"].items()
        self.graphs = {
            name: onnxruntime.InferenceSession(Path(folder, graph["file"]), options) for name, graph in graphs
        }

    def run(self, graph, **inputs):
        """Return the outputs of a graph; of the inputs it gets those that it takes."""
        taken = self.manifest["graphs"][graph]["inputs"]
        found = self.graphs[graph].run(None, {name: value for name, value in inputs.items() if name in taken})
        return found if len(found) > 1 else found[0]

    def tree(self, leaves):
        """Return the nodes ``[batch, 2 N, leaf_size]`` above the leaves ``[batch, N, leaf_size]``."""
        levels = [leaves]
        while levels[-1].shape[1] > 1:
            left, right = (levels[-1][:, side::2].reshape(-1, leaves.shape[2]) for side in (0, 1))
            levels.append(self.run("join", left=left, right=right).reshape(len(leaves), -1, leaves.shape[2]))
        return np.concatenate([np.zeros_like(levels[-1]), *reversed(levels)], axis=1)

    def attend(self, nodes, query):
        """Return the row of the attended leaf in each tree, ``[batch]``."""
        rows = np.ones(len(nodes), np.int64)
        while 2 * rows[0] < nodes.shape[1]:
            rows = 2 * rows + (self.run("search", node=nodes[np.arange(len(nodes)), rows], query=query) > 0)
        return rows

    def rejoin(self, nodes, rows):
        """Recompute all nodes above the rows, in place."""
        each = np.arange(len(nodes))
        while rows[0] > 1:
            rows = rows // 2
            nodes[each, rows] = self.run("join", left=nodes[each, 2 * rows], right=nodes[each, 2 * rows + 1])

    def outputs(self, cells, occupied, timesteps):
        """Return the logits of the output bits, ``[batch, timesteps, output_size]``, and the attended leaves.

        ``cells`` are ``[batch, N, input_size]``, of which those that are ``occupied`` ``[batch, N]`` hold the instance.
        """
        is_raw, each = "step" not in self.graphs, np.arange(len(cells))
        leaves = self.run("embed", cells=cells, occupied=occupied & (not is_raw))
        queries = self.run("embed", cells=cells, occupied=occupied) if is_raw else None
        nodes = self.tree(leaves)
        hidden, cell = np.zeros((2, len(cells), self.manifest["sizes"]["query_size"]), np.float32)
        logits, attended = [], []
        for access in range(timesteps * self.manifest["accesses_per_output"]):
            query = queries[:, access] if is_raw else hidden
            rows = self.attend(nodes, query)
            read = nodes[each, rows]
            if not is_raw:
                hidden, cell = self.run("step", read=read, hidden=hidden, cell=cell)
            written = self.run("write", leaf=read, query=query if is_raw else hidden)
            nodes[each, rows] = written
            self.rejoin(nodes, rows)
            attended.append(rows - cells.shape[1])
            logits.append(self.run("output", read=read, written=written, hidden=hidden))
        last = slice(self.manifest["accesses_per_output"] - 1, None, self.manifest["accesses_per_output"])
        return np.stack(logits[last], axis=1), np.stack(attended, axis=1)


if __name__ == "__main__":
    numbers = np.array([7, 1000, 42])
    cells, occupied = np.zeros((1, 4, 10), np.float32), np.array([[True, True, True, False]])
    cells[0, :3] = numbers[:, None] >> np.arange(9, -1, -1) & 1  # ten bits each
    logits, leaves = Episodes(sys.argv[1] if sys.argv[1:] else "exported").outputs(cells, occupied, timesteps=4)
    print((logits[0, :3, :10] > 0) @ (1 << np.arange(9, -1, -1)))  # [  42 1000    7]
