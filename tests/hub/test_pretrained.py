"""Models as folders of three files and as checkpoints: what is saved comes back, and what is not sound is refused."""

import json
import logging
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_ham.hub import HAMModel, from_pretrained, pretrained
from lightning_ham.hub.pretrained import bundled_names

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
    assert isinstance(loaded, HAMModel)
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
    model.save(tmp_path / "saved")
    from_pretrained(tmp_path / "saved")
    from_pretrained(write_checkpoint())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("task", ["add", "merge", "reverse", "search", "sort"])
def test_every_task_and_option_can_be_saved(task, tmp_path):
    options = {"controller_size": 5, "leaf_size": 3, "hidden_size": 7, "join": "mlp", "read_root": True}
    HAMModel(task, controller_options=options).save(tmp_path / task)
    loaded = from_pretrained(tmp_path / task)
    assert options.items() <= loaded.controller_options.items()


def test_saving_again_replaces_the_three_files_and_nothing_else(model, folder):
    (folder / "notes.txt").write_text("mine")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    model.save(folder)
    assert names_in(folder) == FILES | {"notes.txt"}
    assert (folder / "notes.txt").read_text() == "mine"
    assert same_weights(from_pretrained(folder), model)


def test_folders_above_are_made_and_links_are_followed(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save("a/b/model")
    (tmp_path / "link").symlink_to("a/b/model")
    model.save("link")
    assert (tmp_path / "link").is_symlink()
    assert names_in(tmp_path / "a/b") == {"model"}
    monkeypatch.chdir(tmp_path / "a/b/model")
    model.save(".")
    assert same_weights(from_pretrained("."), model)


def test_weights_on_the_device_and_in_the_layout_that_they_have_are_saved(model, tmp_path):
    weight = model.controller.head.weight
    weight.data = weight.data.T.contiguous().T
    assert not weight.is_contiguous()
    model.save(tmp_path / "saved")
    assert same_weights(from_pretrained(tmp_path / "saved"), model)


# Nothing half-written.


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("broken", sorted(FILES))
def test_failed_save_leaves_what_was_there(model, tmp_path, monkeypatch, exists, broken):
    target = tmp_path / "saved"
    if exists:
        model.save(target)
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
        model.save(target)
    assert target.exists() == exists
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_would_not_load_is_not_saved(model, tmp_path):
    with pytest.raises(ValueError, match=r"of type torch.float32, but got torch.float16"):
        model.half().save(tmp_path / "half")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder_to_save_to(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="Expected a folder to save to, but got the file"):
        model.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


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
    model.save(run / "model")
    assert same_weights(from_pretrained(run), model)
    assert [record.getMessage() for record in caplog.records] == [
        f"Loaded {run} from the checkpoint {run / 'checkpoints/last.ckpt'}",
        f"Loaded {run} from the checkpoint {run / 'checkpoints/best.ckpt'}",
        f"Loaded {run} from the folder {run / 'model'}",
    ]


def test_bundled_models_are_whole_and_load_by_name(caplog):
    caplog.set_level(logging.INFO, "lightning_ham")
    for name in bundled_names():
        assert names_in(pretrained.BUNDLED / name) == FILES
        loaded = from_pretrained(name)
        assert name == f"ham-{loaded.task_name}".replace("_", "-")
        assert caplog.messages[-1] == f"Loaded {name} from the models that come with lightning_ham"


@pytest.fixture
def bundled(folder, monkeypatch):
    """Has the saved model come with the package as ham-tiny."""
    monkeypatch.setattr(pretrained, "BUNDLED", folder.parent)


def test_bundled_name_needs_no_file_but_a_folder_of_that_name_wins(bundled, model, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "lightning_ham")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert same_weights(from_pretrained("ham-tiny"), model)
    HAMModel("merge").save("ham-tiny")
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
    build = HAMModel.__init__

    def remember(model, *arguments):
        devices.append(torch.empty(0).device.type)
        build(model, *arguments)

    monkeypatch.setattr(HAMModel, "__init__", remember)
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
    loaded = HAMModel.from_checkpoint(path)
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
    loaded.save(tmp_path / "saved")
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
        HAMModel.from_checkpoint(path)
    assert str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"hyper_parameters": {}}, {"state_dict": 1}])
def test_checkpoint_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="Expected a checkpoint of lightning_ham, but got one of something else"):
        from_pretrained(tmp_path / "x.ckpt")


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
