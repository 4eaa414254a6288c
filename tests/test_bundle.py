"""The models that come with the package: their cards are those that bundling their runs makes."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from lightning_ham import bundle, cards
from lightning_ham.hub.places import bundled_names

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "model_cards"
WEIGHTS = ROOT / "lightning_ham" / "hub" / "weights"


def test_the_three_tuned_models_are_bundled():
    assert {"ham-merge", "ham-reverse", "ham-sort"} <= set(bundled_names())


each_model = pytest.mark.parametrize("name", bundled_names())


@each_model
def test_its_measurements_are_of_its_weights(name):
    record = json.loads((CARDS / f"{name}.json").read_text())
    assert record["weights_sha256"] == hashlib.sha256((WEIGHTS / name / "model.safetensors").read_bytes()).hexdigest()


@each_model
def test_bundling_its_run_again_makes_the_same_model_and_card(name, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(WEIGHTS / name, run / "model")
    record = json.loads((CARDS / f"{name}.json").read_text())
    for part in ("evaluation", "training"):
        (run / f"{part}.json").write_text(json.dumps(record[part]))
    (tmp_path / "model_cards").mkdir()
    shutil.copytree(ROOT / "results", tmp_path / "results")
    made = bundle.bundle(run, name, tmp_path)
    for file in ("model.safetensors", "config.json", "README.md"):
        assert (made / file).read_bytes() == (WEIGHTS / name / file).read_bytes(), f"{file} is stale"
    for file in (f"{name}.md", f"{name}.json"):
        assert (tmp_path / "model_cards" / file).read_bytes() == (CARDS / file).read_bytes(), f"{file} is stale"
    made_of, shown_of = (
        {path.name: drawn_from_what(path) for path in (folder / name).iterdir()}
        for folder in (tmp_path / "model_cards", CARDS)
    )
    assert made_of == shown_of, "a picture is stale"
    assert "attention.png" in made_of


def drawn_from_what(picture):
    with Image.open(picture) as image:
        return image.info["Description"]


def test_every_bundled_model_has_its_card():
    assert {path.stem for path in CARDS.glob("*.md")} == set(bundled_names())


def test_outside_a_checkout_nothing_is_bundled(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a checkout of lightning_ham"):
        bundle.bundle(tmp_path, "ham-sort", tmp_path)


def test_the_command_complains_in_one_line(tmp_path, capsys):
    for arguments, message in (
        (["--help"], None),
        (["run"], "the following arguments are required: NAME"),
        (
            [str(tmp_path), "ham-sort", "--output", str(tmp_path)],
            "Expected a checkout of lightning_ham with the folder",
        ),
        ([str(tmp_path / "run"), "ham-sort"], "evaluation.json"),
    ):
        with pytest.raises(SystemExit) as ended:
            bundle.main(arguments)
        captured = capsys.readouterr()
        assert ended.value.code == (2 if message else 0)
        assert message is None or (message in captured.err and captured.err.count("\n") == 1)


@pytest.fixture
def checkout(tmp_path):
    """What of a checkout concerns the model ham-reverse."""
    for folder in ("results", "model_cards", f"{WEIGHTS.relative_to(ROOT)}/ham-reverse"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_cards_are_written_anew(checkout, capsys):
    stale = [
        checkout / "model_cards" / "ham-reverse.md",
        checkout / WEIGHTS.relative_to(ROOT) / "ham-reverse/README.md",
    ]
    for path in stale:
        path.write_text("stale")
    assert cards.main(["ham-reverse", "--output", str(checkout)]) == 0
    assert capsys.readouterr().out == f"Wrote {stale[0]}\n"
    for path in stale:
        assert path.read_bytes() == (ROOT / path.relative_to(checkout)).read_bytes()


def test_a_card_evaluated_again_says_what_was_measured_now(checkout, monkeypatch):
    monkeypatch.setattr("lightning_ham.reproduction.cards.RANGES", [(1, 4)])
    monkeypatch.setattr("lightning_ham.reproduction.cards.EPISODES", [7])
    assert cards.main(["ham-reverse", "--evaluate", "--output", str(checkout)]) == 0
    record = json.loads((checkout / "model_cards" / "ham-reverse.json").read_text())
    assert [(result["lengths"], result["episodes"]) for result in record["evaluation"]["results"]] == [([1, 4], 7)]
    assert "| 1-4 | 4 | 7 | 0 |" in (checkout / "model_cards" / "ham-reverse.md").read_text()


def test_a_record_of_other_weights_is_refused(checkout, capsys):
    path = checkout / "model_cards" / "ham-reverse.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights_sha256": "0" * 64}))
    before = (checkout / "model_cards" / "ham-reverse.md").read_bytes()
    with pytest.raises(SystemExit) as ended:
        cards.main(["ham-reverse", "--output", str(checkout)])
    assert ended.value.code == 2
    assert "error: Expected weights with the SHA-256 0000" in capsys.readouterr().err
    assert (checkout / "model_cards" / "ham-reverse.md").read_bytes() == before
