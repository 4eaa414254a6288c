"""The format onnx: graphs that give the model's own answers in ONNX Runtime, and a manifest that fits them."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from benchmarks.onnx_answers import BOUND, compare
from lightning_ham import from_pretrained
from lightning_ham.controllers import LSTMHAM
from lightning_ham.export import main
from lightning_ham.exporting.onnx_graphs import check, run, to_onnx
from lightning_ham.exporting.parts import parts_of
from lightning_ham.hub import TrainedModel
from lightning_ham.tasks import Lengths

RAW, LSTM = "ham-priority-queue", "ham-merge"


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


@pytest.mark.parametrize(
    ("name", "lengths", "count"),
    [(RAW, (2, 32), 800), (RAW, (33, 64), 200), (LSTM, (1, 32), 800), (LSTM, (33, 64), 200)],
)
def test_answers_over_whole_episodes_are_those_of_the_model(name, lengths, count, exported):
    row = compare(from_pretrained(name), name, exported(name), Lengths(*lengths), count)
    assert (row["instances"], row["same_answer"]) == (count, count)
    assert row["same_leaves"] >= 0.99 * count
    assert row["largest_difference"] < BOUND
    assert row["parting"] is None or row["parting"] < BOUND


def test_the_comparison_finds_what_differs(exported):
    model = from_pretrained(LSTM)
    with torch.no_grad():
        model.controller.head.bias -= 1e-2
        model.controller.memory.search.out.bias += 0.1
    row = compare(model, LSTM, exported(LSTM), Lengths(8, 8), 100)
    assert row["same_leaves"] < 100
    assert row["largest_difference"] == pytest.approx(1e-2, rel=1e-3)
    assert BOUND < row["parting"] < 0.1
    with torch.no_grad():
        model.controller.head.bias -= 100
    assert compare(model, LSTM, exported(LSTM), Lengths(8, 8), 100)["same_answer"] == 0


@pytest.mark.parametrize("name", [RAW, LSTM])
def test_the_manifest_tells_of_the_files(name, exported):
    folder = exported(name)
    manifest = manifest_of(folder)
    assert {path.name for path in folder.iterdir()} == {"manifest.json"} | {
        graph["file"] for graph in manifest["graphs"].values()
    }
    for graph in manifest["graphs"].values():
        content = (folder / graph["file"]).read_bytes()
        assert graph["sha256"] == hashlib.sha256(content).hexdigest()
        session = onnxruntime.InferenceSession(content)
        for told, found in ((graph["inputs"], session.get_inputs()), (graph["outputs"], session.get_outputs())):
            assert {key: value["shape"] for key, value in told.items()} == {value.name: value.shape for value in found}
            kinds = {"float32": "tensor(float)", "bool": "tensor(bool)"}
            assert [kinds[value["type"]] for value in told.values()] == [value.type for value in found]
    assert manifest["graphs"]["search"]["inputs"]["node"]["shape"] == ["batch", manifest["sizes"]["leaf_size"]]
    assert manifest["config"] == from_pretrained(name).config()


def test_the_manifest_tells_what_is_particular_to_a_model(exported):
    raw, lstm = manifest_of(exported(RAW)), manifest_of(exported(LSTM))
    assert raw["sizes"] == {"input_size": 11, "leaf_size": 32, "query_size": 32, "output_size": 12}
    assert list(raw["graphs"]) == ["embed", "join", "search", "write", "output"]
    assert list(lstm["graphs"]) == ["embed", "join", "search", "write", "step", "output"]
    assert "query = embed(cell, true)" in "\n".join(raw["algorithm"])
    assert "hidden, cell = step(read, hidden, cell)" in "\n".join(lstm["algorithm"])
    assert (raw["results"]["33-128"], raw["supervision"]) == (0.0001, ["echo", "state", "guide"])
    assert lstm["episode"]["timesteps"]["5"] == 6


@pytest.mark.parametrize("name", [RAW, LSTM])
def test_nothing_of_this_machine_is_in_the_files(name, exported):
    for path in exported(name).iterdir():
        content = path.read_bytes()
        for foreign in (str(Path.home()), sys.prefix, str(Path(__file__).parents[2]), "site-packages", ".py"):
            assert foreign.encode() not in content, path


def test_a_batch_of_any_size_will_do(exported):
    folder = exported(RAW)
    join = onnxruntime.InferenceSession(folder / "join.onnx")
    rows = np.random.default_rng(0).uniform(-1, 1, (2, 7, 32)).astype(np.float32)
    (together,) = join.run(None, {"left": rows[0], "right": rows[1]})
    alone = [join.run(None, {"left": rows[0, [i]], "right": rows[1, [i]]})[0][0] for i in range(7)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)
    assert join.run(None, {"left": rows[0, :0], "right": rows[1, :0]})[0].shape == (0, 32)


def test_a_grid_two_accesses_and_the_papers_readout_are_exported(capfd):
    torch.manual_seed(0)
    options = {"controller_size": 6, "leaf_size": 8, "join": "mlp", "grid": 0.25, "readout": "state"}
    model = TrainedModel("sort", "lstm_ham", options | {"accesses_per_output": 2}).eval()
    files = to_onnx(model, "mine")
    assert capfd.readouterr() == ("", "")  # the exporter's notes are not for the user
    manifest = json.loads(files["manifest.json"])
    assert (manifest["grid"], manifest["accesses_per_output"]) == (0.25, 2)
    assert list(manifest["graphs"]["output"]["inputs"]) == ["hidden"]
    parts = parts_of(model)
    values = parts.example(30, 3, torch.Generator().manual_seed(2))
    values["left"] *= 1e3  # tanh at its ends
    with torch.no_grad():
        expected = parts(values)
    for part in ("embed", "join", "write"):
        (found,) = run(files[f"{part}.onnx"], parts.table[part], values).values()
        (output,) = parts.table[part].outputs
        assert torch.equal(found, (found * 4).round() / 4)
        assert (found == expected[output]).float().mean() > 0.99

    # The check would find other weights in a graph.
    graphs = {part: files[f"{part}.onnx"] for part in parts.table}
    check(parts, graphs)
    with torch.no_grad():
        model.controller.head.bias[0] += 1e-3
    with pytest.raises(
        ValueError, match=r"up to 1e-05, but got a difference of 0\.001.* in 'logits' of the graph 'outp"
    ):
        check(parts, graphs)


class _OwnWay(LSTMHAM):
    def forward(self, *arguments: object, **options: object):
        return super().forward(*arguments, **options)


def test_other_controllers_are_refused(tmp_path, capsys):
    TrainedModel("reverse", "lstm_attention", {"controller_size": 2}).save_pretrained(tmp_path / "small")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "small"), "--format", "onnx", "-o", str(tmp_path / "out")])
    expected = (
        "Expected a model with the controller lstm_ham or raw_ham for the format onnx, but got 'lstm_attention'; "
    )
    expected += "the format json takes any."
    assert (ended.value.code, *capsys.readouterr()) == (2, "", f"error: {expected}\n")
    assert not (tmp_path / "out").exists()
    model = TrainedModel("reverse")
    model.controller = _OwnWay(10, 11)
    with pytest.raises(ValueError, match="Expected a model with the controller lstm_ham or raw_ham"):
        to_onnx(model, "mine")


class _Odd(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left if left.sum() > right.sum() else right


def test_a_module_that_cannot_be_exported_is_told_in_a_sentence():
    model = TrainedModel("reverse", "lstm_ham", {"controller_size": 2, "leaf_size": 2})
    model.controller.memory.join = _Odd()
    with pytest.raises(ValueError, match=r"^Expected modules that torch\.onnx can export, but got: "):
        to_onnx(model.train(), "mine")
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_it_says_what_to_install(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        main([RAW, "--format", "onnx", "-o", str(tmp_path / "out")])
    out, error = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert error.startswith("error: Expected the packages onnx, onnxscript, onnxruntime for the format onnx, but got: ")
    assert package in error.partition("but got: ")[2]
    assert error.endswith(" Install them with `pip install 'lightning-ham[export]'`.\n")
    assert not (tmp_path / "out").exists()
