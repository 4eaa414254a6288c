"""The parts of a model with a memory, each a function of tensors: what ONNX graphs are made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_ham.controllers.lstm_ham import LSTMHAM
from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.hub import TrainedModel

Values = dict[str, Tensor]
"""Tensors by name."""


class Part(NamedTuple):
    """A part of a model."""

    does: str
    """What it does, for the manifest."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


_MEMORY = {
    "embed": Part(
        "EMBED: a cell becomes a leaf; a cell that is not occupied becomes a blank leaf.",
        ("cells", "occupied"),
        ("leaves",),
    ),
    "join": Part("JOIN: two children become their parent.", ("left", "right"), ("parent",)),
    "search": Part(
        "SEARCH: the logit of going right at a node; go right if it is above 0.", ("node", "query"), ("logit",)
    ),
    "write": Part("WRITE: the attended leaf becomes a new leaf.", ("leaf", "query"), ("new_leaf",)),
}


class Parts(nn.Module):
    """All parts of a controller side by side, in one module. A name stands for the same tensor in all parts.

    Args:
        controller: The controller.
    """

    table: Mapping[str, Part]
    """The parts by name."""

    def __init__(self, controller: LSTMHAM | RawHAM) -> None:
        super().__init__()
        self.controller = controller

    def example(self, batch: int, cells: int, generator: torch.Generator) -> Values:
        """Return random inputs of all parts, by name."""
        memory = self.controller.memory

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(batch, *shape, generator=generator) - 1

        node = {name: uniform(memory.leaf_size) for name in ("left", "right", "node", "leaf", "read")}
        return {
            "cells": (uniform(cells, memory.input_size) > 0).float(),
            "occupied": uniform(cells) > 0,
            "query": uniform(memory.query_size),
            **node,
        }

    def forward(self, values: Values) -> Values:
        """Return the outputs of all parts, by name, for their inputs."""
        memory = self.controller.memory
        node, query = values["node"], values["query"]
        return {
            "leaves": memory.embed(values["cells"], values["occupied"]),
            "parent": memory.join(values["left"], values["right"]),
            "logit": memory.search(node.unsqueeze(1), query).squeeze(1),
            "new_leaf": memory.write_leaf(values["leaf"], query),
        }


class LSTMParts(Parts):
    """The parts of LSTM+HAM."""

    controller: LSTMHAM

    def __init__(self, controller: LSTMHAM) -> None:
        super().__init__(controller)
        seen = {"state_and_read": ("hidden", "read"), "state": ("hidden",), "read": ("read",)}[controller.readout]
        self.table = _MEMORY | {
            "step": Part(
                "The LSTM's step: the value read changes its state.",
                ("read", "hidden", "cell"),
                ("next_hidden", "next_cell"),
            ),
            "output": Part("The logits of the output bits; a bit is 1 if its logit is above 0.", seen, ("logits",)),
        }

    def example(self, batch: int, cells: int, generator: torch.Generator) -> Values:
        state = 2 * torch.rand(2, batch, self.controller.controller_size, generator=generator) - 1
        return super().example(batch, cells, generator) | {"hidden": state[0], "cell": state[1]}

    def forward(self, values: Values) -> Values:
        hidden, cell = self.controller.lstm(values["read"], (values["hidden"], values["cell"]))
        logits = self.controller.outputs(values["hidden"], values["read"])
        return super().forward(values) | {"next_hidden": hidden, "next_cell": cell, "logits": logits}


class RawParts(Parts):
    """The parts of a raw HAM."""

    controller: RawHAM
    table = _MEMORY | {
        "output": Part(
            "The logits of the output bits; a bit is 1 if its logit is above 0.", ("read", "written"), ("logits",)
        ),
    }

    def example(self, batch: int, cells: int, generator: torch.Generator) -> Values:
        values = super().example(batch, cells, generator)
        return values | {"written": 2 * torch.rand(values["read"].shape, generator=generator) - 1}

    def forward(self, values: Values) -> Values:
        return super().forward(values) | {"logits": self.controller.outputs(values["read"], values["written"])}


def parts_of(model: TrainedModel) -> Parts:
    """Return the parts of a model.

    Raises:
        ValueError: If it has no memory, or a controller of another kind.
    """
    controller: Any = model.controller
    for kind, parts in _KINDS.items():
        if isinstance(controller, kind) and type(controller).forward is kind.forward:
            return parts(controller)
    raise ValueError(
        "Expected a model with the controller lstm_ham or raw_ham for the format onnx, but got "
        f"{model.controller_name!r}; the format json takes any."
    )


_KINDS: dict[type[nn.Module], type[Any]] = {LSTMHAM: LSTMParts, RawHAM: RawParts}
