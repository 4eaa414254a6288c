import pytest
import torch

from lightning_ham.hub import HAMModel

OPTIONS = {"controller_size": 6, "leaf_size": 4}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return HAMModel("sort", controller_options=OPTIONS)


@pytest.fixture
def folder(model, tmp_path):
    """A saved model."""
    model.save(tmp_path / "ham-tiny")
    return tmp_path / "ham-tiny"


@pytest.fixture
def write_checkpoint(model, tmp_path):
    """Writes a checkpoint as Lightning does, with entries replaced, or left out where they are None."""

    def write(name="model.ckpt", hyper_parameters=(), state_dict=(), **entries):
        state = {f"model.{key}": value for key, value in model.state_dict().items()}
        parameters = {
            "task": "sort",
            "controller": "lstm_ham",
            "controller_options": model.controller_options,
            "learning_rate": 0.003,
        }
        checkpoint = {
            "epoch": 3,
            "global_step": 300,
            "state_dict": _without_none(state | dict(state_dict)),
            "hyper_parameters": _without_none(parameters | dict(hyper_parameters)),
        } | entries
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_without_none(checkpoint), path)
        return path

    return write


def _without_none(mapping):
    return {key: value for key, value in mapping.items() if value is not None}
