"""The manifest of an export to ONNX: which graph does what, and in words how to put them together, without PyTorch."""

from __future__ import annotations

import inspect
from itertools import islice
from typing import Any

from lightning_ham.controllers.lstm_ham import LSTMHAM
from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.exporting.facts import facts
from lightning_ham.hub import TrainedModel
from lightning_ham.tasks import Task

FORMAT = 1
"""Version of the format; raised when older readers could no longer read new exports."""

_TREE = (
    "A memory with N leaves is an array nodes of 2 N rows of leaf_size numbers. Row 1 is the root, rows 2 e and "
    "2 e + 1 are the left and the right child of row e, and row N + i is leaf i, from i = 0. Row 0 is unused."
)
_BUILD = "Build the tree: for e from N - 1 down to 1, nodes[e] = join(nodes[2 e], nodes[2 e + 1])."
_ATTEND = "Attend: from e = 1, while e < N, go to e = 2 e + 1 if search(nodes[e], query) > 0, else to e = 2 e."
_READ = "Read: read = nodes[e], a copy."
_REJOIN = "Re-join: while e > 1, set e to e / 2, rounded down, and nodes[e] = join(nodes[2 e], nodes[2 e + 1])."
_MOST_EXAMPLES = 16
"""Most numbers of cells for which the number of outputs is listed."""


def describe(model: TrainedModel, name: str, graphs: dict[str, Any], opset: int) -> dict[str, Any]:
    """Return the manifest, as plain data.

    Args:
        model: The model.
        name: Its name.
        graphs: What to tell of each graph, by name.
        opset: Version of ONNX's operators.
    """
    controller: Any = model.controller
    memory = controller.memory
    return {
        "format": FORMAT,
        **facts(model, name),
        "opset": opset,
        "sizes": {
            "input_size": memory.input_size,
            "leaf_size": memory.leaf_size,
            "query_size": memory.query_size,
            "output_size": model.task.output_size,
        },
        "grid": memory.grid,
        "capacity": _capacity(controller),
        "accesses_per_output": model.accesses_per_output,
        "graphs": graphs,
        "algorithm": [_TREE, *_algorithm(controller)],
        "episode": _episode(model.task),
    }


def _capacity(controller: LSTMHAM | RawHAM) -> str:
    rule = "N is the smallest power of two that is at least the number of cells."
    if isinstance(controller, LSTMHAM):
        return rule
    return (
        f"{rule} A cell is an operation. If their number is unknown, take at least twice the largest number of "
        "elements at a time. After N pushes, move the elements to a blank tree: pop each one and keep what is read; "
        "then, for each of these, attend with a push, put it there instead of what write returns, and re-join. For a "
        "stack, begin with the one popped last."
    )


def _algorithm(controller: LSTMHAM | RawHAM) -> list[str]:
    """Return the steps of an episode."""
    if isinstance(controller, LSTMHAM):
        return [
            "Fill the leaves: leaves = embed(cells, occupied), with N cells, of which the last ones are not occupied.",
            _BUILD,
            "Start with hidden and cell of query_size zeros.",
            "An access is the following steps.",
            _ATTEND.replace("query", "hidden"),
            _READ,
            "Step: hidden, cell = step(read, hidden, cell).",
            "Write: nodes[e] = write(read, hidden).",
            _REJOIN,
            "After every accesses_per_output accesses, put out: logits = output(hidden, read), those of them that the "
            "graph takes; bits = logits > 0.",
        ]
    return [
        "Fill the leaves with N cells that are not occupied: leaves = embed(zeros, false). They are blank.",
        _BUILD,
        "Carry out an operation, which is one access, by the following steps.",
        "Embed it: query = embed(cell, true).",
        _ATTEND,
        _READ,
        "Write: nodes[e] = write(read, query).",
        _REJOIN,
        "Put out: logits = output(read, written), where written is the new nodes[e]; bits = logits > 0.",
    ]


def _episode(task: Task[Any, Any]) -> dict[str, Any]:
    """Return what the cells and outputs of an episode are."""
    lengths = range(task.min_length, task.min_length + _MOST_EXAMPLES * task.length_step, task.length_step)
    return {
        "documentation": inspect.cleandoc(type(task).__doc__ or ""),
        "silent_timesteps": task.silent_timesteps,
        "predicts_end": task.predicts_end,
        "hint_bits": task.num_hints,
        "timesteps": {str(length): task.timesteps_for(length) for length in islice(lengths, _MOST_EXAMPLES)},
        "bits": (
            "An output is the bits of a symbol, then hint_bits that carry no answer, and last, if predicts_end, a bit "
            "that is 1 only in the timestep after the last symbol. Nothing counts in the first silent_timesteps "
            "outputs. `timesteps` has the number of outputs by number of cells, for small ones."
        ),
    }
