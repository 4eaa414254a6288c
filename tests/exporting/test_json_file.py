"""The format json: one file from which another language, knowing nothing of torch, gets the very same numbers."""

import base64
import json
import struct

import pytest
import torch

from lightning_ham import __version__, from_pretrained
from lightning_ham.exporting.json_file import read_weights, to_json
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.places import BUNDLED, bundled_names


def document_of(model: TrainedModel, name: str = "some") -> dict:
    ((file, content),) = to_json(model, name).items()
    assert file == "model.json"
    return json.loads(content)


@pytest.mark.parametrize("name", bundled_names())
def test_weights_are_read_back_bit_for_bit(name):
    model = from_pretrained(name)
    document = document_of(model, name)
    read, state = read_weights(document), model.state_dict()
    assert list(read) == list(state)
    for key, weight in state.items():
        assert read[key].dtype == torch.float32
        assert torch.equal(read[key].view(torch.int32), weight.view(torch.int32)), key
        plain = base64.b64decode(document["weights"][key]["data"])  # as a reader without numpy would do
        assert struct.unpack(f"<{weight.numel()}f", plain) == tuple(weight.flatten().tolist())


def test_it_tells_what_is_known_of_the_model():
    document = document_of(from_pretrained("ham-add"), "ham-add")
    weights = document.pop("weights")
    assert weights["controller.lstm.weight_ih"]["shape"] == [128, 32]
    assert document == {
        "format": 1,
        "lightning_ham": __version__,
        "name": "ham-add",
        "task": "add",
        "config": json.loads((BUNDLED / "ham-add" / "config.json").read_text()),
        "supervision": ["echo", "guide"],
        "results": {"1-32": 0.0, "33-128": 0.0001, "129-1024": 0.75},
    }


def test_of_a_model_without_a_card_only_the_numbers_are_known(tmp_path):
    model = TrainedModel("sort", "lstm", {"controller_size": 3})
    model.save_pretrained(tmp_path / "small")
    (tmp_path / "small" / "README.md").unlink()
    document = document_of(TrainedModel.from_folder(tmp_path / "small"))
    assert (document["supervision"], document["results"], document["config"]["controller"]) == ([], {}, "lstm")
    again = TrainedModel("sort", "lstm", {"controller_size": 3})
    again.load_state_dict(read_weights(document))
    assert again.weights_sha256() == model.weights_sha256() == document["config"]["weights_sha256"]


def test_odd_numbers_survive():
    model = TrainedModel("reverse", "lstm", {"controller_size": 1})
    odd = torch.tensor([-0.0, 1e-45, 3.4028235e38, -1e-38])
    model.controller.encoder.bias_hh_l0.data = odd
    read = read_weights(document_of(model))["controller.encoder.bias_hh_l0"]
    assert torch.equal(read.view(torch.int32), odd.view(torch.int32))


def test_damage_is_told():
    document = document_of(TrainedModel("reverse", "lstm", {"controller_size": 1}))
    weight = document["weights"]["controller.encoder.bias_hh_l0"]
    weight["data"] = weight["data"][:-8]
    with pytest.raises(ValueError, match=r"Expected 16 bytes in weight '.*bias_hh_l0' of shape \[4\], but got 12"):
        read_weights(document)
    with pytest.raises(ValueError, match="Expected key 'format' to be 1, but got 2"):
        read_weights(document | {"format": 2})


def test_weights_in_double_precision_are_refused():
    model = TrainedModel("reverse", "lstm", {"controller_size": 1}).double()
    with pytest.raises(ValueError, match=r"Expected weights of type torch.float32 .*, but '.*' has torch.float64"):
        to_json(model, "double")


def test_the_file_is_the_same_each_time():
    model = from_pretrained("ham-queue")
    assert to_json(model, "x") == to_json(model, "x")
