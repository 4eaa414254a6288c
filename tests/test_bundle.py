"""The models that come with the package: their cards are those that bundling their runs makes."""

import json
import shutil
from pathlib import Path

import pytest

from lightning_ham import bundle
from lightning_ham.hub.pretrained import bundled_names

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "model_cards"
WEIGHTS = ROOT / "lightning_ham" / "hub" / "weights"


def test_the_three_tuned_models_are_bundled():
    assert {"ham-merge", "ham-reverse", "ham-sort"} <= set(bundled_names())


@pytest.mark.parametrize("name", sorted(path.stem for path in CARDS.glob("*.md")))
def test_bundling_its_run_again_makes_the_same_model_and_card(name, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(WEIGHTS / name, run / "model")
    for part, content in json.loads((CARDS / f"{name}.json").read_text()).items():
        (run / f"{part}.json").write_text(json.dumps(content))
    (tmp_path / "model_cards").mkdir()
    monkeypatch.setattr(bundle, "_CHECKOUT", tmp_path)
    made = bundle.bundle(run, name)
    for file in ("model.safetensors", "config.json", "README.md"):
        assert (made / file).read_bytes() == (WEIGHTS / name / file).read_bytes(), f"{file} is stale"
    for file in (f"{name}.md", f"{name}.json"):
        assert (tmp_path / "model_cards" / file).read_bytes() == (CARDS / file).read_bytes(), f"{file} is stale"


def test_every_bundled_model_has_its_card():
    assert {path.stem for path in CARDS.glob("*.md")} == set(bundled_names())


def test_outside_a_checkout_nothing_is_bundled(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "_CHECKOUT", tmp_path)
    with pytest.raises(FileNotFoundError, match="Expected a checkout of lightning_ham"):
        bundle.bundle(tmp_path, "ham-sort")
