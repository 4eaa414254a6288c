"""`python -m lightning_ham.export`: what it writes and says, and how it fails."""

import json
import sys
from pathlib import Path

import pytest

from lightning_ham.export import main
from lightning_ham.exporting import export_model, format_names
from lightning_ham.hub import TrainedModel


@pytest.fixture
def model() -> TrainedModel:
    return TrainedModel("reverse", "lstm", {"controller_size": 1})


def fails(capsys, *arguments: object) -> str:
    """The error of a call that fails with status 2, writing nothing to standard output."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, error = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error.removeprefix("error: ").removesuffix("\n")


def test_it_writes_a_new_folder_and_says_which_files(tmp_path, capsys):
    folder = tmp_path / "a" / "b"
    assert main(["ham-queue", "--format", "json", "-o", str(folder)]) == 0
    assert capsys.readouterr() == (f"{folder / 'model.json'}\n", "")
    assert json.loads((folder / "model.json").read_text())["name"] == "ham-queue"
    assert list(folder.iterdir()) == [folder / "model.json"]


@pytest.mark.parametrize(("where", "name"), [("my-model", "my-model"), (".", "my-model")])
def test_a_model_given_by_its_path_is_named_after_it(model, where, name, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "my-model")
    monkeypatch.chdir(tmp_path if where != "." else tmp_path / "my-model")
    assert main([where, "--format", "json", "-o", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "model.json").read_text())["name"] == name


def test_wrong_use_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    output = ["-o", tmp_path / "out"]
    assert "did you mean 'ham-sort'?" in fails(capsys, "ham-srot", "--format", "json", *output)
    assert "invalid choice: 'jsno'" in fails(capsys, "ham-sort", "--format", "jsno", *output)
    assert "required: --format" in fails(capsys, "ham-sort", *output)
    assert "required: -o/--output" in fails(capsys, "ham-sort", "--format", "json")
    expected = f"Expected a folder to export to, but got the file {tmp_path / 'file'}."
    assert fails(capsys, "ham-sort", "--format", "json", "-o", tmp_path / "file") == expected
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.fixture
def two(tmp_path_factory, monkeypatch) -> None:
    """Installs a package with a format of two files."""
    site = tmp_path_factory.mktemp("site")
    info = site / "ham_two-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ham_two\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lightning_ham.export_formats]\ntwo = ham_two:two\n")
    (site / "ham_two.py").write_text(
        "def two(model, name):\n    return {'part': name.encode(), 'index': model.task_name.encode()}\n"
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "ham_two", raising=False)


def test_another_package_can_add_a_format(two, model, tmp_path):
    assert "two" in format_names()
    paths = export_model(model, "mine", "two", tmp_path)
    assert [path.read_text() for path in paths] == ["mine", "reverse"]


def test_an_export_that_stops_half_way_does_not_look_complete(two, model, tmp_path, monkeypatch):
    export_model(model, "first", "two", tmp_path)
    opened = Path.open

    def open_or_fail(path: Path, *arguments: object, **more: object):
        if "index" in path.name:
            raise OSError("No space left on device")
        return opened(path, *arguments, **more)

    with monkeypatch.context() as full:
        full.setattr(Path, "open", open_or_fail)
        with pytest.raises(OSError, match="No space left"):
            export_model(model, "second", "two", tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"part": "second"}
