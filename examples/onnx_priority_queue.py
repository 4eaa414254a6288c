"""A learned priority queue in NumPy and ONNX Runtime, without PyTorch. Its elements exist only in the tree's nodes.

python -m lightning_ham.export ham-priority-queue --format onnx -o exported && python onnx_priority_queue.py exported"""

import sys

import numpy as np
from onnxruntime import InferenceSession


class PriorityQueue:
    def __init__(self, path, capacity):
        self.graphs = {p: InferenceSession(f"{path}/{p}.onnx") for p in ("embed", "join", "search", "write", "output")}
        self.capacity, self.num_leaves = capacity, 1 << (2 * capacity - 1).bit_length()
        blank = self.run("embed", cells=np.zeros((1, 1, 11), np.float32), occupied=np.array([[False]]))[0]
        self.nodes, self.size, self.pushes = blank.repeat(2 * self.num_leaves, axis=0), 0, 0
        for row in range(self.num_leaves - 1, 0, -1):
            self.join_children(row)
        self.blank_nodes = self.nodes.copy()

    def run(self, part, **inputs):
        return self.graphs[part].run(None, inputs)[0]

    def join_children(self, row):
        self.nodes[row] = self.run("join", left=self.nodes[[2 * row]], right=self.nodes[[2 * row + 1]])[0]

    def access(self, is_pop, priority=0, value=0, put=None):  # returns the leaf read; WRITE follows, unless one is put
        cell = np.array([[[is_pop, *map(int, f"{priority:05b}{value:05b}")]]], np.float32)
        query, row = self.run("embed", cells=cell, occupied=np.array([[True]]))[0], 1
        while row < self.num_leaves:
            row = 2 * row + int(self.run("search", node=self.nodes[[row]], query=query)[0] > 0)
        read = self.nodes[[row]]
        self.nodes[row] = (self.run("write", leaf=read, query=query) if put is None else put)[0]
        for level in range(1, row.bit_length()):
            self.join_children(row >> level)
        return read

    def push(self, priority, value):  # both from 0 to 31
        if self.size == self.capacity:
            raise OverflowError(f"Expected fewer than {self.capacity} elements before a push")
        if self.pushes == self.num_leaves:  # it was trained to use each leaf once: move all elements to a blank tree
            leaves = [self.access(True) for _ in range(self.size)]
            self.nodes, self.pushes = self.blank_nodes.copy(), self.size
            for leaf in leaves:
                self.access(False, put=leaf)
        self.access(False, priority, value)
        self.size, self.pushes = self.size + 1, self.pushes + 1

    def pop(self):
        if self.size == 0:
            raise IndexError("Expected an element before a pop")
        self.size, read = self.size - 1, self.access(True)
        return int((self.run("output", read=read, written=read)[0, :5] > 0) @ [16, 8, 4, 2, 1])


if __name__ == "__main__":
    queue = PriorityQueue(sys.argv[1] if sys.argv[1:] else "exported", capacity=16)
    for element in [(9, 4), (2, 7), (30, 1)]:
        queue.push(*element)
    print(queue.pop(), queue.pop(), queue.pop())  # 7 4 1
