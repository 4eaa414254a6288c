"""``python -m lightning_ham.certify``, and certificates on their way with models."""

import json
import shutil

import pytest
import torch

from lightning_ham import certify, from_pretrained, solve
from lightning_ham.hub import list_pretrained
from lightning_ham.hub.places import BUNDLED
from lightning_ham.models.__main__ import main as list_models


@pytest.fixture
def copy(tmp_path):
    """A folder with a certified model."""
    return shutil.copytree(BUNDLED / "ham-queue", tmp_path / "mine")


def wrong_model(folder):
    model = from_pretrained("ham-queue")
    model.controller.get_parameter("head.2.bias").data[4] = 1e3  # the last bit of every value is 1
    model.save_pretrained(folder)
    return model


def test_it_prints_one_line_and_writes_a_certificate_that_loads(copy, capsys, tmp_path):
    (copy / "certificate.json").unlink()
    assert not from_pretrained(copy).is_certified
    assert certify.main([str(copy), "--output", str(copy / "certificate.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("certified for every capacity: ")
    assert len(out.splitlines()) == 1
    model = from_pretrained(copy)
    assert model.is_certified
    assert out == f"{model.certificate}\n"


def test_without_a_proof_it_prints_operations_that_solve_shows_to_go_wrong(tmp_path, capsys):
    model = wrong_model(tmp_path / "wrong")
    assert certify.main([str(tmp_path / "wrong")]) == 1
    reason, instance = capsys.readouterr().out.splitlines()
    assert reason.startswith("not certified: a leaf puts out a wrong value")
    (tmp_path / "wrong.jsonl").write_text(instance)
    assert solve.main([str(tmp_path / "wrong"), str(tmp_path / "wrong.jsonl")]) == 0
    assert json.loads(capsys.readouterr().out) != model.task.oracle(json.loads(instance))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ham-sort"], "Expected a model of a data structure"),
        (["ham-priority-queue"], "Expected a memory with a grid"),
        (["ham-stack", "--grid", "0.3"], "grid"),
        (["ham-stakc"], "ham-stack"),
    ],
)
def test_what_cannot_be_certified_is_an_error_in_a_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ending:
        certify.main(arguments)
    assert ending.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_certificate_is_bound_to_the_weights_and_the_grid(copy, tmp_path):
    model = from_pretrained(copy)
    kept = model.certificate
    assert kept is not None
    model.controller.memory.grid = 0.5
    assert model.certificate is None
    model.controller.memory.grid = kept.grid
    assert model.certificate is kept
    with torch.no_grad():
        next(model.parameters())[0] += 1.0
    assert model.certificate is None
    with pytest.raises(ValueError, match="Expected a certificate of this model"):
        model.certificate = kept
    model.save_pretrained(copy)
    assert not (copy / "certificate.json").exists()
    assert not from_pretrained(copy).is_certified


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1}', b"\xff", b'{"format": 1, "task": "queue"}', b"null"],
)
def test_a_broken_certificate_is_refused_on_loading(copy, content):
    (copy / "certificate.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"certificate\.json: Expected a certificate"):
        from_pretrained(copy)


def test_a_certificate_of_another_model_is_refused_on_loading(copy):
    shutil.copy(BUNDLED / "ham-stack" / "certificate.json", copy)
    with pytest.raises(ValueError, match="Expected a certificate of this model"):
        from_pretrained(copy)


def test_it_is_saved_with_the_model_and_promised_on_its_card(tmp_path):
    model = from_pretrained("ham-stack")
    model.save_pretrained(tmp_path / "saved")
    again = from_pretrained(tmp_path / "saved")
    assert str(again.certificate) == str(model.certificate)
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "**Certified.** It is proven right for every capacity" in card
    assert f"{model.certificate.pairs:,} pairs" in card
    from_pretrained("ham-sort").save_pretrained(tmp_path / "sort")
    assert "ertified" not in (tmp_path / "sort" / "README.md").read_text()


def test_models_shows_which_are_certified(capsys):
    certified = {model.name for model in list_pretrained() if model.certified and model.where == "package"}
    assert certified == {"ham-stack", "ham-queue"}
    list_models([])
    header, *rows = capsys.readouterr().out.splitlines()
    place = header.index("certified")
    shown = {row.split()[0] for row in rows if row[place:].startswith("yes")}
    assert certified <= shown


def test_a_certified_structure_opens_without_a_capacity_and_grows():
    structure = from_pretrained("ham-queue").open()
    assert structure.capacity is None
    for value in range(300):
        structure.push(value % 32)
    assert repr(structure) == "<queue: 300 elements, unbounded>"
    assert [structure.pop() for _ in range(300)] == [value % 32 for value in range(300)]
    with pytest.raises(IndexError):
        structure.pop()
    with pytest.raises(ValueError, match="only a certified model"):
        from_pretrained("ham-priority-queue").open()
