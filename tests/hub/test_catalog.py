"""Which models there are: bundled ones, and those in the cache, without a network."""

import json

import pytest

from lightning_ham import from_pretrained, list_pretrained
from lightning_ham.hub import PretrainedModel
from lightning_ham.hub.pretrained import BUNDLED, bundled_names
from lightning_ham.models.__main__ import main, table
from lightning_ham.training.evaluation import evaluate


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)


@pytest.fixture
def cache(tmp_path, no_network):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def put(cache, repo_id, folder):
    """Put a folder into a cache as one that was downloaded."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    return snapshot


def test_every_bundled_model_is_listed_with_what_its_card_says(cache):
    listed = list_pretrained(cache)
    assert [model.name for model in listed] == bundled_names()
    for model in listed:
        assert model.task == json.loads((BUNDLED / model.name / "config.json").read_text())["task"]
        assert model.size == (BUNDLED / model.name / "model.safetensors").stat().st_size
        assert model.where == "package"
        assert {"1-32", "33-128"} <= model.errors.keys()
        assert all(0 <= model.errors[lengths] < 0.01 for lengths in ("1-32", "33-128"))  # longer ones are hard


def test_without_a_home_there_are_those_of_the_package(no_network, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~nobody-of-this-name/hub")  # as ~ without a home
    assert [model.name for model in list_pretrained()] == bundled_names()
    with pytest.raises(FileNotFoundError, match="there is no home for it: set HF_HOME or give `cache_dir`"):
        from_pretrained("ada/mine", local_files_only=True)


def test_models_in_the_cache_are_listed_and_others_are_not(cache, model, tmp_path):
    evaluation = evaluate(model, [(1, 4)], episodes=10, seed=0)
    evaluation["results"][0]["sequence_error"] = 0.25
    model.save(tmp_path / "mine", evaluation)
    put(cache, "ada/mine", tmp_path / "mine")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "bert" / "model.safetensors").write_bytes(b"")
    put(cache, "bert/base", tmp_path / "bert")
    size = (tmp_path / "mine" / "model.safetensors").stat().st_size
    assert list_pretrained(cache)[len(bundled_names()) :] == [
        PretrainedModel("ada/mine", "sort", {"1-4": 0.25}, size, "cache")
    ]


@pytest.mark.parametrize(
    "card",
    [None, "no metadata", "---\nmodel-index: 3\n---\n", "---\n: [\n---\n", "---\n- 1\n---\n", "\xff"],
)
def test_a_card_that_cannot_be_read_has_no_errors(cache, folder, card):
    snapshot = put(cache, "ada/mine", folder)
    if card is None:
        (snapshot / "README.md").unlink()
    else:
        (snapshot / "README.md").write_bytes(card.encode("latin-1"))
    assert list_pretrained(cache)[-1].errors == {}


def test_there_may_be_no_cache(tmp_path, no_network):
    assert [model.where for model in list_pretrained(tmp_path / "none")] == ["package"] * len(bundled_names())


def test_the_table_has_a_column_for_every_range():
    models = [
        PretrainedModel("ham-sort", "sort", {"1-32": 0.0, "33-128": 0.0004}, 125264, "package"),
        PretrainedModel("ada/mine", "sort", {"9-16": 1.0}, 900, "cache"),
        PretrainedModel("ada/other", "add", {}, 1234567, "cache"),
    ]
    assert table(models) == (
        "name       task  wrong, 1-32  wrong, 9-16  wrong, 33-128      size  where\n"
        "ham-sort   sort          0 %                      0.04 %    125 kB  package\n"
        "ada/mine   sort                     100 %                     1 kB  cache\n"
        "ada/other  add                                            1,235 kB  cache"
    )


def test_the_command_prints_a_table_or_json(cache, capsys):
    assert main(["--cache_dir", str(cache)]) == 0
    assert capsys.readouterr().out == table(list_pretrained(cache)) + "\n"
    assert main(["--cache_dir", str(cache), "--json"]) == 0
    assert [PretrainedModel(**model) for model in json.loads(capsys.readouterr().out)] == list_pretrained(cache)
