"""The format ``json``: one file with everything that is needed to run a model in another language.

``model.json`` is an object: ``format``, the version of this format; the
:func:`~lightning_ham.exporting.facts.facts` about the model; and ``weights``, by name a ``shape`` and ``data``, which
are little-endian 32-bit floats in row order, in base64.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ham.exporting.facts import facts
from lightning_ham.foreign import quoted
from lightning_ham.hub import TrainedModel

FORMAT = 1
"""Version of the format; raised when older readers could no longer read new files."""
FILE = "model.json"
"""Name of the file."""

_FLOAT = np.dtype("<f4")


def to_json(model: TrainedModel, name: str) -> dict[str, bytes]:
    """Return the content of ``model.json``, by its name.

    Args:
        model: The model.
        name: Its name.

    Raises:
        ValueError: If a weight is not a 32-bit float.
    """
    document = {
        "format": FORMAT,
        **facts(model, name),
        "weights": {key: _encoded(key, weight) for key, weight in model.state_dict().items()},
    }
    return {FILE: (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()}


def _encoded(name: str, weight: Tensor) -> dict[str, Any]:
    if weight.dtype != torch.float32:
        raise ValueError(f"Expected weights of type torch.float32 for JSON, but {name!r} has {weight.dtype}.")
    data = weight.detach().cpu().contiguous().numpy().astype(_FLOAT, copy=False).tobytes()
    return {"shape": list(weight.shape), "data": base64.b64encode(data).decode("ascii")}


def read_weights(document: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights in the content of a ``model.json``: a state dict for the model that it tells of.

    Args:
        document: The content, as :func:`json.loads` returns it.

    Raises:
        ValueError: If it has another format, or a weight is damaged.
    """
    if document.get("format") != FORMAT:
        raise ValueError(f"Expected key 'format' to be {FORMAT}, but got {quoted(document.get('format'))}.")
    return {name: _decoded(name, **weight) for name, weight in document["weights"].items()}


def _decoded(name: str, shape: list[int], data: str) -> Tensor:
    numbers = base64.b64decode(data, validate=True)
    if len(numbers) != math.prod(shape) * _FLOAT.itemsize:
        raise ValueError(
            f"Expected {math.prod(shape) * _FLOAT.itemsize:,} bytes in weight {quoted(name)} of shape {shape}, but got "
            f"{len(numbers):,}; export the model again."
        )
    return torch.from_numpy(np.frombuffer(numbers, _FLOAT).astype(np.float32).reshape(shape))
