"""The format ``onnx``: a graph for each part of a model, and a manifest that says how to put them together.

Needs the extra ``export``. All parts are exported at once, which takes seconds, and then extracted from the one graph.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

import torch

from lightning_ham.exporting.manifest import describe
from lightning_ham.exporting.parts import Part, Parts, Values, parts_of
from lightning_ham.foreign import shown
from lightning_ham.hub import TrainedModel

OPSET = 18
"""Version of ONNX's operators in the graphs."""
MANIFEST = "manifest.json"
"""Name of the file that describes the graphs."""
TOLERANCE = 1e-5
"""Largest accepted difference between ONNX Runtime and PyTorch, relative to numbers above 1, else absolute."""

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def to_onnx(model: TrainedModel, name: str) -> dict[str, bytes]:
    """Return the graphs of a model and their manifest, by their files' names; each graph is checked in ONNX Runtime.

    Args:
        model: The model.
        name: Its name.

    Raises:
        ImportError: If the extra ``export`` is missing.
        ValueError: If the controller is neither LSTM+HAM nor a raw HAM, a module in it cannot be exported, or ONNX
            Runtime computes other numbers than PyTorch.
    """
    utils = _packages()
    parts = parts_of(_on_cpu(model))
    whole = _exported(parts)
    extractor = utils.Extractor(whole)
    graphs = {key: extractor.extract_model(list(part.inputs), list(part.outputs)) for key, part in parts.table.items()}
    files = {f"{key}.onnx": graph.SerializeToString(deterministic=True) for key, graph in graphs.items()}
    check(parts, {key: files[f"{key}.onnx"] for key in graphs})
    described = {
        key: {
            "file": f"{key}.onnx",
            "sha256": hashlib.sha256(files[f"{key}.onnx"]).hexdigest(),
            "does": part.does,
            "inputs": _described(graphs[key].graph.input),
            "outputs": _described(graphs[key].graph.output),
        }
        for key, part in parts.table.items()
    }
    manifest = describe(model, name, described, OPSET)
    return files | {MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode()}


def _described(values: Any) -> dict[str, Any]:
    """Return types and shapes of a graph's inputs or outputs; a size is a number, or a name if any will do."""
    types = importlib.import_module("onnx").helper
    return {
        value.name: {
            "type": types.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            "shape": [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim],
        }
        for value in values
    }


def _packages() -> Any:
    """Return the module onnx.utils, if all that the export needs can be imported."""
    try:
        for package in _PACKAGES:
            importlib.import_module(package)
        return importlib.import_module("onnx.utils")
    except ImportError as error:
        raise ImportError(
            f"Expected the packages {', '.join(_PACKAGES)} for the format onnx, but got: {shown(error)}. "
            "Install them with `pip install 'lightning-ham[export]'`."
        ) from error


def _on_cpu(model: TrainedModel) -> TrainedModel:
    """Return a copy of the model on the CPU, that does not train."""
    return copy.deepcopy(model).cpu().float().eval().requires_grad_(False)


def _exported(parts: Parts) -> Any:
    """Return one ONNX model with all parts, without traces of how it was made."""
    values = parts.example(2, 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = list(parts(values))
    batch, cells = torch.export.Dim("batch"), torch.export.Dim("cells")
    shapes = {name: {0: batch, 1: cells} if name in ("cells", "occupied") else {0: batch} for name in values}
    try:
        with _silence():
            program = torch.onnx.export(
                parts,
                kwargs={"values": values},
                dynamo=True,
                dynamic_shapes={"values": shapes},
                input_names=list(values),
                output_names=outputs,
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
    except torch.onnx.errors.OnnxExporterError as error:
        raise ValueError(f"Expected modules that torch.onnx can export, but got: {shown(error)}") from error
    return _stripped(model)


def _stripped(model: Any) -> Any:
    """Return an ONNX model without notes on the code that it was made from, such as names of files."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del noted.metadata_props[:]
        noted.doc_string = ""
    return model


def check(parts: Parts, graphs: Mapping[str, bytes]) -> None:
    """Raise a ValueError unless graphs compute in ONNX Runtime what the parts do in PyTorch, on random inputs.

    A number that is rounded to a grid may be just between two multiples, and then become either. So with a grid, a
    thousandth of the numbers may differ.

    Args:
        parts: The parts.
        graphs: Serialized graphs, by the names of the parts.
    """
    values = parts.example(64, 5, torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = parts(values)
    few = 1e-3 if parts.controller.memory.grid else 0.0
    for name, part in parts.table.items():
        for output, got in run(graphs[name], part, values).items():
            difference = (got - expected[output]).abs() / expected[output].abs().clamp(min=1)
            if (~(difference <= TOLERANCE)).float().mean() > few:
                raise ValueError(
                    f"Expected ONNX Runtime to compute the same as PyTorch, up to {TOLERANCE:g}, but got a difference "
                    f"of {difference.max():g} in {output!r} of the graph {name!r}."
                )


def run(graph: bytes, part: Part, values: Values) -> Values:
    """Return the outputs of a part's graph in ONNX Runtime, by name."""
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found = session.run(list(part.outputs), {name: values[name].numpy() for name in part.inputs})
    return dict(zip(part.outputs, map(torch.from_numpy, found), strict=True))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress, warnings and notes from the user: they tell nothing of the model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
