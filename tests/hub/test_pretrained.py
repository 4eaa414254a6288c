"""Models as folders of three files and as checkpoints: what is saved comes back, and what is not sound is refused."""

import copy
import hashlib
import io
import itertools
import json
import logging
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_ham.hub import TrainedModel, from_pretrained, places
from lightning_ham.hub.files import PICTURES, saved
from lightning_ham.hub.places import bundled_names

FILES = {"config.json", "model.safetensors", "README.md"}
INSTANCES = [[(3, 4), (1, 2), (3, 0)], [(5, 5)], [(key % 32, 1) for key in range(50)]]


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def same_weights(left, right):
    return left.state_dict().keys() == right.state_dict().keys() and all(
        torch.equal(tensor, right.state_dict()[name]) for name, tensor in left.state_dict().items()
    )


def change_config(folder, change):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


# Round trips.


def test_saved_model_is_three_files_and_comes_back_bit_for_bit(model, folder):
    assert names_in(folder) == FILES
    assert names_in(folder.parent) == {folder.name}
    loaded = from_pretrained(folder)
    assert isinstance(loaded, TrainedModel)
    assert not loaded.training
    assert same_weights(model, loaded)
    assert (loaded.task_name, loaded.controller_options) == (model.task_name, model.controller_options)
    assert loaded.solve(INSTANCES) == model.solve(INSTANCES)
    assert loaded.trace(INSTANCES[0]) == model.trace(INSTANCES[0])


def test_files_can_be_read_by_whoever_can_read_a_new_file(folder):
    (folder.parent / "new").write_text("")
    expected = (folder.parent / "new").stat().st_mode
    assert {(folder / name).stat().st_mode for name in FILES} == {expected}


def test_saving_and_loading_cost_no_random_numbers(model, tmp_path, write_checkpoint):
    before = torch.get_rng_state()
    model.save_pretrained(tmp_path / "saved")
    from_pretrained(tmp_path / "saved")
    from_pretrained(write_checkpoint())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("task", ["add", "merge", "reverse", "search", "sort"])
def test_every_task_and_option_can_be_saved(task, tmp_path):
    options = {"controller_size": 5, "leaf_size": 3, "hidden_size": 7, "join": "mlp", "readout": "read"}
    TrainedModel(task, controller_options=options).save_pretrained(tmp_path / task)
    loaded = from_pretrained(tmp_path / task)
    assert options.items() <= loaded.controller_options.items()


def test_saving_again_replaces_the_three_files_and_nothing_else(model, folder):
    (folder / "notes.txt").write_text("mine")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    model.save_pretrained(folder)
    assert names_in(folder) == FILES | {"notes.txt"}
    assert (folder / "notes.txt").read_text() == "mine"
    assert same_weights(from_pretrained(folder), model)


def test_folders_above_are_made_and_links_are_followed(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("a/b/model")
    (tmp_path / "link").symlink_to("a/b/model")
    model.save_pretrained("link")
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path / "a/b") == {"model"}
    monkeypatch.chdir(tmp_path / "a/b/model")
    model.save_pretrained(".")
    assert same_weights(from_pretrained("."), model)


def test_weights_on_the_device_and_in_the_layout_that_they_have_are_saved(model, tmp_path):
    weight = model.controller.head.weight
    weight.data = weight.data.T.contiguous().T
    assert not weight.is_contiguous()
    model.save_pretrained(tmp_path / "saved")
    assert same_weights(from_pretrained(tmp_path / "saved"), model)


# Nothing half-written.


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("broken", sorted(FILES))
def test_failed_save_leaves_what_was_there(model, tmp_path, monkeypatch, exists, broken):
    target = tmp_path / "saved"
    if exists:
        model.save_pretrained(target)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write = Path.write_bytes

    def fail(path, content):
        if path.name == broken:
            write(path, content[:10])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fail)
    with torch.no_grad():
        model.controller.head.bias += 1
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(target)
    assert target.exists() == exists
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_would_not_load_is_not_saved(model, tmp_path):
    with pytest.raises(ValueError, match=r"of type torch.float32, but got torch.float16"):
        model.half().save_pretrained(tmp_path / "half")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder_to_save_to(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="Expected a folder to save to, but got the file"):
        model.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


OPERATIONS = ("mkdir", "open", "rename", "replace", "rmdir", "unlink")
"""What a save is made of, for the system."""


def killed_at(operation, act):
    """Do something in a process that dies at its nth operation on files; return whether it was done before."""
    process = os.fork()
    if process == 0:
        counts = itertools.count(1)

        def dying(call):
            def wrapped(*arguments, **options):
                if next(counts) == operation:
                    os._exit(9)
                return call(*arguments, **options)

            return wrapped

        for name in OPERATIONS:
            setattr(os, name, dying(getattr(os, name)))
        io.open = dying(io.open)
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_killed_at_any_point_a_save_leaves_the_old_model_or_the_new_one(model, tmp_path):
    old, new = model, TrainedModel("add", controller_options=model.controller_options)
    folder, found = tmp_path / "saved", []
    old.save_pretrained(tmp_path / "old", pictures={"attention.png": b"old"})
    (tmp_path / "old" / "notes.txt").write_text("mine")
    for operation in itertools.count(1):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "old", folder)
        done = killed_at(operation, lambda: new.save_pretrained(folder, pictures={"learning_curve.png": b"new"}))
        loaded = from_pretrained(folder)
        found.append(loaded.task_name)
        assert same_weights(loaded, old if loaded.task_name == "sort" else new)
        pictures = {name for name in PICTURES if saved(folder, name).is_file()}
        assert pictures == {"attention.png" if loaded.task_name == "sort" else "learning_curve.png"}
        if done:
            break
        new.save_pretrained(folder)  # makes up for what was left
        assert names_in(folder) == FILES | {"notes.txt"}
        assert same_weights(from_pretrained(folder), new)
    assert found == sorted(found, reverse=True), "the new model was there, and then the old one again"
    assert found.count("add") > 3
    assert found.count("sort") > 3
    assert names_in(folder) == FILES | {"notes.txt", "learning_curve.png"}


def test_whoever_loads_while_others_save_gets_a_whole_model(model, tmp_path):
    folder, models = tmp_path / "saved", [model, TrainedModel("add", controller_options=model.controller_options)]
    model.save_pretrained(folder)
    process = os.fork()
    if process == 0:
        try:
            for turn in range(30):
                models[turn % 2].save_pretrained(folder)
        finally:
            os._exit(0)
    found = set()
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        found.add(from_pretrained(folder).task_name)
    assert found == {"add", "sort"}


# Damaged weights.


def test_every_flipped_bit_of_the_weights_is_found(folder):
    file = folder / "model.safetensors"
    content, random_numbers = file.read_bytes(), random.Random(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[random_numbers.randrange(len(content))] ^= 1 << random_numbers.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^\S*model.safetensors: Expected ") as raised:
            from_pretrained(folder)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 600
    file.write_bytes(content)
    from_pretrained(folder)


def test_weights_of_another_model_of_the_same_kind_are_found(model, folder, tmp_path):
    with torch.no_grad():
        model.controller.head.bias += 1
    model.save_pretrained(tmp_path / "other")
    file = folder / "model.safetensors"
    file.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(
        ValueError, match=r"one with another hash than config.json tells \(SHA-256 \w{12}\.\.\., not \w{12}"
    ):
        from_pretrained(folder)


def test_a_model_that_tells_no_hash_is_loaded_with_a_warning(model, folder, caplog):
    change_config(folder, lambda config: config.pop("weights_sha256"))
    assert same_weights(from_pretrained(folder), model)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.getMessage() == (
        f"{folder / 'config.json'} has no hash of the weights: it cannot be checked whether they are those that were "
        "saved. Save the model again."
    )


def test_a_saved_model_tells_the_hash_of_its_weights(model, folder, caplog):
    config = json.loads((folder / "config.json").read_text())
    assert config["weights_sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert config["weights_sha256"] == model.weights_sha256()
    from_pretrained(folder)
    assert caplog.records == []


def test_weights_of_absurd_size_are_not_read(folder, monkeypatch):
    monkeypatch.setattr("lightning_ham.hub.folder.MAX_WEIGHTS", 100)
    with pytest.raises(ValueError, match=r"model.safetensors: Expected at most 100 bytes, but got a larger file"):
        from_pretrained(folder)


# What from_pretrained finds.


def test_run_folder_gives_its_saved_model_then_the_best_then_the_last_checkpoint(
    model, tmp_path, write_checkpoint, caplog
):
    caplog.set_level(logging.INFO, "lightning_ham")
    run = tmp_path / "run"

    def bias(value):
        return {"model.controller.head.bias": torch.full_like(model.controller.head.bias, value)}

    write_checkpoint("run/checkpoints/last.ckpt", state_dict=bias(1.0))
    assert from_pretrained(run).controller.head.bias[0] == 1
    write_checkpoint("run/checkpoints/best.ckpt", state_dict=bias(2.0))
    assert from_pretrained(str(run)).controller.head.bias[0] == 2
    model.save_pretrained(run / "model")
    assert same_weights(from_pretrained(run), model)
    assert [record.getMessage() for record in caplog.records] == [
        f"Loaded {run} from the checkpoint {run / 'checkpoints/last.ckpt'}",
        f"Loaded {run} from the checkpoint {run / 'checkpoints/best.ckpt'}",
        f"Loaded {run} from the folder {run / 'model'}",
    ]


def test_bundled_models_are_whole_and_load_by_name(caplog):
    caplog.set_level(logging.INFO, "lightning_ham")
    for name in bundled_names():
        loaded = from_pretrained(name)
        certificate = {"certificate.json"} if loaded.is_certified else set()
        assert names_in(places.BUNDLED / name) == FILES | certificate
        assert name == f"ham-{loaded.task_name}".replace("_", "-")
        assert caplog.messages[-1] == f"Loaded {name} from the models that come with lightning_ham"


@pytest.fixture
def bundled(folder, monkeypatch):
    """Has the saved model come with the package as ham-tiny."""
    monkeypatch.setattr(places, "BUNDLED", folder.parent)


def test_bundled_name_needs_no_file_but_a_folder_of_that_name_wins(bundled, model, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "lightning_ham")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert same_weights(from_pretrained("ham-tiny"), model)
    TrainedModel("merge").save_pretrained("ham-tiny")
    assert from_pretrained("ham-tiny").task_name == "merge"
    assert caplog.messages == [
        "Loaded ham-tiny from the models that come with lightning_ham",
        "Loaded ham-tiny from the folder ham-tiny",
    ]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("ham-tyni", ValueError, "Unknown model 'ham-tyni'; did you mean 'ham-tiny'? Known models: ham-tiny."),
        ("something", ValueError, "Unknown model 'something'; Known models: ham-tiny. A model on the Hub is given as"),
        ("ham-sorts", ValueError, "Unknown model 'ham-sorts'; Known models: ham-tiny."),
        ("ham-heap", ValueError, "Unknown model 'ham-heap';"),
        ("runs/merge", FileNotFoundError, "comes with lightning_ham (ham-tiny), or that of one on the"),
        ("runs/merge", FileNotFoundError, "but there is no runs/merge."),
        ("a/b/c", FileNotFoundError, "but there is no a/b/c."),
        ("/ham-tiny", FileNotFoundError, "but there is no /ham-tiny."),
        ("./ham-tiny", FileNotFoundError, "but there is no ./ham-tiny."),
        ("~/ham-tiny", FileNotFoundError, "but there is no ~/ham-tiny."),
        ("ham-tiny/", FileNotFoundError, "but there is no ham-tiny/."),
        ("ham-sort/../../x", FileNotFoundError, "but there is no ham-sort/../../x."),
        ("../ham-tiny", FileNotFoundError, "but there is no ../ham-tiny."),
        ("best.ckpt", FileNotFoundError, "but there is no best.ckpt."),
        ("notes.txt", ValueError, "Expected a model's folder or a checkpoint (.ckpt), but got the file notes.txt."),
        ("empty", FileNotFoundError, "or a run folder with model/config.json, checkpoints/best.ckpt or checkpoints/"),
        ("half", FileNotFoundError, "Expected a folder with config.json and model.safetensors, but half has no model."),
    ],
)
def test_what_leads_to_no_model_is_told_at_once(bundled, folder, tmp_path, monkeypatch, name, error, message):
    here = tmp_path / "here"
    (here / "empty").mkdir(parents=True)
    (here / "half").mkdir()
    (here / "half" / "config.json").write_bytes((folder / "config.json").read_bytes())
    (here / "notes.txt").write_text("")
    monkeypatch.chdir(here)
    monkeypatch.setattr("socket.socket.connect", None)  # no attempt on the network
    if name == "../ham-tiny":
        here.rename(tmp_path / "moved")
        (tmp_path / "moved" / "deeper").mkdir()
        monkeypatch.chdir(tmp_path / "moved" / "deeper")
    with pytest.raises(error, match=re.escape(message)):
        from_pretrained(name)


LONG = "a" * 100_000


@pytest.mark.parametrize(
    "name",
    [
        "~nosuchuser",
        "~nosuchuser/model",
        LONG,
        f"ham-sort-{LONG}",
        f"ada/{LONG}",
        f"{LONG}/ada",
        f"runs/{LONG}",
        f"{LONG}.ckpt",
        f"{'a/' * 50_000}a",
        "\x1b[31mred",
        "two\nlines",
        "ada/\x1b[2J",
        "right\u202eleft/x",
        "nothing\0more",
    ],
    ids=range(14),
)
@pytest.mark.parametrize("make", [str, Path])
def test_names_that_are_none_are_told_in_a_short_line(monkeypatch, tmp_path, name, make):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", None)  # no attempt on the network
    with pytest.raises((FileNotFoundError, ValueError), match=r"^(Expected|Unknown model) ") as raised:
        from_pretrained(make(name))
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 700


def test_a_file_or_folder_has_no_revision(folder):
    with pytest.raises(ValueError, match=r"Expected no `revision` for .*, which is a file or folder, but got 'v1'"):
        from_pretrained(folder, revision="v1")


# Unsound folders.


def test_card_is_not_needed_to_load(model, folder):
    (folder / "README.md").unlink()
    assert same_weights(from_pretrained(folder), model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("controller.head.bias"), "'controller.head.bias' is missing."),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if "head" in name],
            "is missing (and 1 more).",
        ),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "'extra' is not one of the model's."),
        (
            lambda tensors: tensors.update({"controller.head.bias": torch.zeros(12)}),
            "Expected 'controller.head.bias' of shape [11], but got [12].",
        ),
        (
            lambda tensors: tensors.update({"controller.head.bias": torch.zeros(11, dtype=torch.float64)}),
            "Expected 'controller.head.bias' of type torch.float32, but got torch.float64.",
        ),
    ],
)
def test_weights_must_be_exactly_those_of_the_model(folder, change, message):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        from_pretrained(folder)
    assert str(raised.value).startswith(f"{file}: ")


def header_of(change):
    """Files of weights whose header is changed as given."""

    def damage(content):
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        change(header)
        made = json.dumps(header).encode()
        return struct.pack("<Q", len(made)) + made + content[8 + size :]

    return damage


NAME = "controller.head.bias"


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header[NAME].update(dtype="\x1b[31mF32"),
        lambda header: header[NAME].update(dtype="X" * 900_000),
        lambda header: header[NAME].update(dtype="F8_E8M0"),
        lambda header: header[NAME].update(dtype="F4"),
        lambda header: header[NAME].update(shape=[2**63]),
        lambda header: header[NAME].update(shape=[0, 2**62], data_offsets=[0, 0]),
        lambda header: header[NAME].update(shape=[-1]),
        lambda header: header[NAME].update(data_offsets=[0, 2**64]),
        lambda header: header.update({"\x1b[31m" + "x" * 900_000: header.pop(NAME)}),
        lambda header: header.update({"two\nlines": header[NAME]}),
        lambda header: header.update(__metadata__={"\x1b": ["\x1b"]}),
    ],
    ids=range(11),
)
def test_headers_that_no_model_has_are_told_in_a_short_line(folder, change):
    file = folder / "model.safetensors"
    file.write_bytes(header_of(change)(file.read_bytes()))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    change_config(folder, lambda config: config.update(weights_sha256=digest))  # so that the hash is no help
    with pytest.raises(ValueError, match=r"^\S*model.safetensors: Expected ") as raised:
        from_pretrained(folder)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600


def huge_header():
    return struct.pack("<Q", 1 << 60)


def bomb():
    """A sound file with more to say of its tensors than any model has."""
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' + b" " * (1 << 20) + b"}"
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:100],
        lambda content: content + b"x",
        lambda content: b"",
        lambda content: huge_header() + content[8:],
        lambda content: bomb(),
        lambda content: b"<!DOCTYPE html><html>not found</html>",
    ],
    ids=["cut", "cut in header", "longer", "empty", "huge header", "bomb", "web page"],
)
def test_damaged_weights_are_refused(folder, damage):
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    message = f"{file}: Expected a whole safetensors file, but got: "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        from_pretrained(folder)


@pytest.mark.parametrize("name", ["controller_size", "leaf_size", "hidden_size"])
def test_sizes_that_are_not_those_of_the_weights_are_refused_before_they_are_allocated(folder, name, monkeypatch):
    change_config(folder, lambda config: config["controller_options"].update({name: 16_384}))
    devices = []
    build = TrainedModel.__init__

    def remember(model, *arguments):
        devices.append(torch.empty(0).device.type)
        build(model, *arguments)

    monkeypatch.setattr(TrainedModel, "__init__", remember)
    with pytest.raises(ValueError, match=r"Expected '.*' of shape \[.*16384.*\], but got"):
        from_pretrained(folder)
    assert devices == ["meta"]


def test_options_that_build_no_controller_are_told_with_the_reason(folder):
    change_config(folder, lambda config: config["controller_options"].update(join="blend"))
    with pytest.raises(
        ValueError, match=r"Expected key 'controller_options' to build a controller 'lstm_ham', .*blend"
    ):
        from_pretrained(folder)


# Checkpoints.


def test_checkpoint_gives_the_model_without_what_only_training_needs(model, write_checkpoint):
    path = write_checkpoint(state_dict={"baseline.weight": torch.zeros(1, 6)}, optimizer_states=[{"state": {}}])
    loaded = TrainedModel.from_checkpoint(path)
    assert same_weights(loaded, model)
    assert not loaded.training


def test_checkpoint_of_a_real_training_gives_its_model(tmp_path):
    from pytorch_lightning import Trainer

    from lightning_ham.training import HAMModule, TaskDataModule

    module = HAMModule("sort", controller_options={"controller_size": 4, "leaf_size": 4}, attention="reinforce")
    trainer = Trainer(
        max_steps=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, TaskDataModule("sort", batch_size=4, capacity=4, validation_episodes=4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert any(name.startswith("baseline.") for name in module.state_dict())
    loaded = from_pretrained(tmp_path / "last.ckpt")
    assert same_weights(loaded, module.model)
    assert loaded.solve(INSTANCES) == module.solve(INSTANCES)
    loaded.save_pretrained(tmp_path / "saved")
    assert same_weights(from_pretrained(tmp_path / "saved"), module.model)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"hyper_parameters": {"task": None}}, "Expected a checkpoint with hyper-parameter 'task', but it has none."),
        ({"hyper_parameters": {"task": "srot"}}, "key 'task': Unknown task 'srot'; did you mean 'sort'?"),
        ({"hyper_parameters": {"task": 3}}, "Expected key 'task' to be a string, but got 3."),
        ({"hyper_parameters": {"controller_options": {}}}, "Expected key 'controller_options."),
        ({"hyper_parameters": {"controller_options": [1]}}, "Expected key 'controller_options' to be an object"),
        ({"state_dict": {"model.controller.head.bias": None}}, "'controller.head.bias' is missing."),
        ({"state_dict": {"model.controller.head.bias": torch.zeros(3)}}, "of shape [11], but got [3]."),
        ({"state_dict": {"model.controller.head.bias": 3}}, "'controller.head.bias' to be a tensor, but got int."),
        ({"state_dict": {"model.other": torch.zeros(3)}}, "'other' is not one of the model's."),
        ({"state_dict": {"other.weight": torch.zeros(3)}}, "'other.weight' is not one of them."),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(write_checkpoint, entries, message):
    path = write_checkpoint(**entries)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        TrainedModel.from_checkpoint(path)
    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"hyper_parameters": {}}, {"state_dict": 1}])
def test_checkpoint_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="Expected a checkpoint of lightning_ham, but got one of something else"):
        from_pretrained(tmp_path / "x.ckpt")


TENSORS = {
    "meta": (lambda: torch.zeros(11, device="meta"), "one without values (device meta)"),
    "sparse": (lambda: torch.eye(11).to_sparse(), "one that is not dense (torch.sparse_coo)"),
    "compressed": (lambda: torch.eye(11).to_sparse_csr(), "one that is not dense (torch.sparse_csr)"),
    "nested": (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "not dense (nested)"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.zeros(11), 1.0, 0, torch.quint8), "not dense (quantized)"),
}


@pytest.mark.filterwarnings("ignore:.*(nested tensors|Sparse CSR|quint8|TypedStorage).*:UserWarning")
@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("place", ["state_dict", "optimizer_states"])
def test_tensors_that_are_not_dense_are_refused_wherever_they_are(write_checkpoint, kind, place):
    make, message = TENSORS[kind]
    entries = {"state_dict": {f"model.{NAME}": make()}, "optimizer_states": [{"state": {0: make()}}]}
    path = write_checkpoint(**{place: entries[place]})
    expected = re.escape(f"'{NAME}'") if place == "state_dict" else r"tensor \d+"
    with pytest.raises(ValueError, match=f"Expected {expected} to be a dense tensor in memory.*{re.escape(message)}"):
        from_pretrained(path)


def refers_to_itself(levels):
    """A list whose parts are each there twice."""
    part = [1]
    for _ in range(levels):
        part = [part, part]
    return part


@pytest.mark.parametrize(
    "entries",
    [
        {"hyper_parameters": {1: 2}},
        {"hyper_parameters": {"controller_options": {1: 2}}},
        {"hyper_parameters": {"controller_options": {"\x1b[31m" * 9999: 2}}},
        {"hyper_parameters": {"controller_options": torch.zeros(3)}},
        {"hyper_parameters": {"task": torch.zeros(3, device="meta")}},
        {"hyper_parameters": {"task": "\x1b[31m" * 99_999}},
        {"hyper_parameters": {"task": 10**9999}},
        {"hyper_parameters": {"task": refers_to_itself(60)}},
        {"hyper_parameters": {"more": refers_to_itself(60)}},
        {"callbacks": refers_to_itself(25)},
        {"state_dict": {1: torch.zeros(3)}},
        {"state_dict": {(1, 2): torch.zeros(3)}},
        {"state_dict": {"\x1b[31m" * 99_999: torch.zeros(3)}},
        {"state_dict": {f"model.{NAME}": torch.zeros(1).expand(2**40)}},
        {"state_dict": {f"model.{NAME}": "\x1b"}},
        {1: 2},
    ],
    ids=range(16),
)
def test_forged_checkpoints_are_told_in_a_short_line_and_at_once(write_checkpoint, tmp_path, entries):
    path = write_checkpoint(**{name: value for name, value in entries.items() if isinstance(name, str)})
    if 1 in entries:
        torch.save(torch.load(path) | entries, path)
    start = time.process_time()
    with pytest.raises(ValueError, match=r"^\S*model.ckpt: Expected |^\S*model.ckpt: key ") as raised:
        from_pretrained(path)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 700
    assert time.process_time() - start < 10


def pickled(*instructions):
    """A checkpoint of these instructions of a pickle."""
    made, plain = io.BytesIO(), io.BytesIO()
    torch.save({}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(made, "w") as archive:
        for entry in source.infolist():
            is_pickle = entry.filename.endswith("data.pkl")
            content = b"\x80\x02" + b"".join(instructions) + b"." if is_pickle else source.read(entry)
            archive.writestr(zipfile.ZipInfo(entry.filename), content)
    return made.getvalue()


def doubled(times, first, pair):
    """Instructions for what has the same in it twice, that the same twice, and so on."""
    begin, end = pair
    parts = [b"%bh%ch%c%bq%c" % (begin, number, number, end, number + 1) for number in range(times)]
    return b"".join([first, b"q\0", *parts])


LISTS, TUPLES = doubled(60, b"](K\1e", (b"](", b"e")), doubled(60, b"K\1\x85", (b"", b"\x86"))
TEXT = b"X" + struct.pack("<I", 200_000) + b"[" * 200_000


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ((LISTS, b")R"), "it calls what is no function"),
        ((TEXT, b")R"), "it calls what is no function"),
        ((TEXT, b")\x81"), "it calls what is no function"),
        ((TUPLES,), "it has keys or tuples that no training writes"),
        ((b"}", TUPLES, b"K\1s"), "it has keys or tuples that no training writes"),
        ((b"}(K\1K\2)K\3u",), "it has keys or tuples that no training writes"),
        ((b"c" + b"[" * 200_000 + b"\nx\n",), "it refers to '[[["),
        ((b"ctorch\n" + b"x" * 200_000 + b"\n",), "it refers to 'torch xxx"),
        ((b"e",), "pop from empty list"),
        ((b"cbuiltins\nbytearray\n\x8a\6\0\0\0\0\0\x7f\x85R",), "MemoryError"),
    ],
    ids=range(10),
)
def test_pickles_that_would_keep_the_reader_busy_are_refused_at_once(tmp_path, instructions, message):
    (tmp_path / "x.ckpt").write_bytes(pickled(*instructions))
    start = time.process_time()
    with pytest.raises(ValueError, match="Expected a whole checkpoint, but got ") as raised:
        from_pretrained(tmp_path / "x.ckpt")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 600
    assert time.process_time() - start < 5


def test_compressed_and_overlapping_archives_are_refused_unread(write_checkpoint):
    path = write_checkpoint()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**6)
    with pytest.raises(ValueError, match="it is compressed, which those of PyTorch are not"):
        from_pretrained(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\0" * 1000)
        for number in range(9):
            entry = copy.copy(archive.infolist()[0])
            entry.filename = f"archive/data/{number}"
            archive.filelist.append(entry)
    with pytest.raises(ValueError, match="it has parts that lie in one another"):
        from_pretrained(path)


class Bomb:
    """Runs a command where it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("entry", ["hyper_parameters", "state_dict", "loops"])
def test_checkpoint_that_would_run_code_is_refused_and_runs_none(write_checkpoint, tmp_path, entry):
    bomb = {"task": Bomb(tmp_path / "ran")}
    path = write_checkpoint(**{entry: bomb})
    with pytest.raises(ValueError, match=r"it refers to '\S+\.system': loading it could run code of its own") as raised:
        from_pretrained(path)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists(), "the bomb of this test is a dud"


def flip_a_weight(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_weight,
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"hello",
        lambda content: b'{"state_dict": {}}',
    ],
    ids=["flipped", "cut", "empty", "text", "json"],
)
def test_damaged_checkpoint_is_refused(write_checkpoint, damage):
    path = write_checkpoint()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="Expected a whole checkpoint, but got a damaged file or one of another kind"):
        from_pretrained(path)


# What loading brings along.


def test_loading_and_solving_bring_neither_the_hub_client_nor_lightning_nor_a_compiler():
    code = (
        "import sys, lightning_ham\n"
        "print(lightning_ham.from_pretrained('ham-merge').solve([([(0.5, 1)], [(0.25, 2)])]))\n"
        "print({'huggingface_hub', 'pytorch_lightning', 'jinja2', 'wandb', 'torch._dynamo'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.splitlines()[1] == "set()"
    assert result.stderr == ""
