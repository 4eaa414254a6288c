"""Which models there are: bundled ones, and those in the cache, without a network."""

import json
import time

import pytest

from lightning_ham import from_pretrained, list_pretrained
from lightning_ham.evaluation import evaluate
from lightning_ham.hub import PretrainedModel
from lightning_ham.hub.places import BUNDLED, bundled_names
from lightning_ham.models.__main__ import main, table


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)


@pytest.fixture
def cache(cache, no_network):
    return cache


SUPERVISION = {
    "ham-add": ("echo", "guide"),
    "ham-merge": ("answers",),
    "ham-priority-queue": ("echo", "state", "guide"),
    "ham-queue": ("state", "branches"),
    "ham-reverse": ("answers",),
    "ham-search": ("echo", "guide"),
    "ham-sort": ("answers",),
    "ham-stack": ("state", "branches"),
}


def test_every_bundled_model_is_listed_with_what_its_card_says(cache):
    listed = list_pretrained(cache)
    assert [model.name for model in listed] == bundled_names()
    for model in listed:
        assert model.task == json.loads((BUNDLED / model.name / "config.json").read_text())["task"]
        assert model.size == (BUNDLED / model.name / "model.safetensors").stat().st_size
        assert model.where == "package"
        assert model.supervision == SUPERVISION[model.name]
        assert {"1-32", "33-128"} <= model.errors.keys()
        assert all(0 <= model.errors[lengths] < 0.01 for lengths in ("1-32", "33-128"))  # longer ones are hard


def test_without_a_home_there_are_those_of_the_package(no_network, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~nobody-of-this-name/hub")  # as ~ without a home
    assert [model.name for model in list_pretrained()] == bundled_names()
    with pytest.raises(FileNotFoundError, match="there is no home for it: set HF_HOME or give `cache_dir`"):
        from_pretrained("ada/mine", local_files_only=True)


def test_models_in_the_cache_are_listed_and_others_are_not(cache, model, tmp_path, put):
    evaluation = evaluate(model, [(1, 4)], episodes=10, seed=0)
    evaluation["results"][0]["sequence_error"] = 0.25
    model.save_pretrained(tmp_path / "mine", evaluation)
    put("ada/mine", tmp_path / "mine")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "bert" / "model.safetensors").write_bytes(b"")
    put("bert/base", tmp_path / "bert")
    size = (tmp_path / "mine" / "model.safetensors").stat().st_size
    assert list_pretrained(cache)[len(bundled_names()) :] == [
        PretrainedModel("ada/mine", "sort", {"1-4": 0.25}, size, "cache")
    ]


def test_of_a_model_in_the_cache_the_supervision_is_what_its_card_says(cache, folder, put):
    card = put("ada/mine", folder) / "README.md"
    assert list_pretrained(cache)[-1].supervision == (), "how it was trained is not known"
    card.write_text("---\ntags:\n- 'supervision:\\e[31mecho'\n- supervision:guide\n---\n")
    assert list_pretrained(cache)[-1].supervision == ("guide",)


@pytest.mark.parametrize(
    "card",
    [None, "no metadata", "---\nmodel-index: 3\n---\n", "---\n: [\n---\n", "---\n- 1\n---\n", "\xff"],
)
def test_a_card_that_cannot_be_read_has_no_errors(cache, folder, card, put):
    snapshot = put("ada/mine", folder)
    if card is None:
        (snapshot / "README.md").unlink()
    else:
        (snapshot / "README.md").write_bytes(card.encode("latin-1"))
    assert list_pretrained(cache)[-1].errors == {}


CARD = """---
model-index:
- name: x
  results:
  - dataset: {{config: {lengths}}}
    metrics:
    - {{type: sequence_error, value: 0.125}}
    - {{type: sequence_error, value: {value}}}
  - dataset: {{config: 33-128}}
    metrics:
    - {{type: sequence_error, value: 0.25}}
---
"""
ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
HOSTILE_CARDS = {
    "10^400": (CARD.format(lengths="1-32", value="1" + "0" * 400), {"1-32": 0.125, "33-128": 0.25}),
    "1e400": (CARD.format(lengths="1-32", value="1e400"), {"1-32": 0.125, "33-128": 0.25}),
    "nan": (CARD.format(lengths="1-32", value=".nan"), {"1-32": 0.125, "33-128": 0.25}),
    "below 0": (CARD.format(lengths="1-32", value="-0.5"), {"1-32": 0.125, "33-128": 0.25}),
    "a list": (CARD.format(lengths="1-32", value="[1, 2]"), {"1-32": 0.125, "33-128": 0.25}),
    "digits": (CARD.format(lengths="9" * 60_000, value="1"), {"33-128": 0.25}),
    "forged row": (CARD.format(lengths='"1-32\\nham-best  sort  0 %"', value="0"), {"33-128": 0.25}),
    "escape": (CARD.format(lengths='"\\e[31m1-32"', value="0"), {"33-128": 0.25}),
    "escape as it is": (CARD.format(lengths="\x1b[31m1-32", value="0"), {}),
    "object": (CARD.format(lengths="!!python/object/apply:os.system [id]", value="0"), {"33-128": 0.25}),
    "date": (CARD.format(lengths="!!timestamp x", value="0"), {"33-128": 0.25}),
    "integer": (CARD.format(lengths="!!int ''", value="!!int ''"), {"33-128": 0.25}),
    "no character": (CARD.format(lengths='"\\U99999999"', value="0"), {}),
    "lists within lists": (f"---\na: {'[' * 3000}\n---\n", {}),
    "mappings within mappings": (f"---\na: {'{a: ' * 3000}\n---\n", {}),
    "items within items": (f"---\n{'- ' * 3000}\n---\n", {}),
    "keys within keys": (f"---\n{'? ' * 3000}\n---\n", {}),
    "aliases": (f"---\n{ALIASES}{CARD.format(lengths='*a59', value='0')[4:]}", {}),
    "alias of itself": (CARD.format(lengths="&a [*a]", value="0"), {}),
    "blank lines": ("---\n" + "\n" * 60_000, {}),
    "separators": ("---\n" * 15_000, {}),
    "many items": ("---\n" + "- a\n" * 15_000 + "---\n", {}),
}


@pytest.mark.parametrize("case", HOSTILE_CARDS)
def test_a_bad_card_costs_its_own_figures_only(cache, folder, case, capsys, put):
    card, errors = HOSTILE_CARDS[case]
    put("ada/another", folder)
    (put("ada/bad", folder) / "README.md").write_text(card)
    start = time.process_time()
    assert main(["--cache_dir", str(cache)]) == 0
    assert time.process_time() - start < 5
    listed = {model.name: model for model in list_pretrained(cache)}
    assert listed["ada/bad"].errors == errors
    assert {"ada/another", *bundled_names()} < listed.keys()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *listed]
    assert all(line.isprintable() and len(line) < 200 for line in lines)


def test_names_that_cannot_be_loaded_are_not_listed(cache, folder, put):
    for name in ("\x1b[31mada/x", "ada/two\nlines", "ada/b/c", "right\u202eleft/x"):
        put(name, folder)
    put("ada/good", folder)
    assert [model.name for model in list_pretrained(cache)][len(bundled_names()) :] == ["ada/good"]


def test_a_damaged_copy_hides_no_other_model(cache, folder, tmp_path, put):
    (put("a/no-weights", folder) / "model.safetensors").unlink()
    (put("b/broken-link", folder) / "model.safetensors").unlink()
    (cache / "models--b--broken-link" / "snapshots" / ("a" * 40) / "model.safetensors").symlink_to(tmp_path / "nowhere")
    put("c/reference", folder)
    (cache / "models--c--reference" / "refs" / "main").write_bytes(b"\xff" * 99)
    (put("d/config", folder) / "config.json").write_text("9" * 1_000_000)
    card = put("e/card", folder) / "README.md"
    card.unlink()
    card.mkdir()
    (cache / "models--f--file").write_text("")
    put("z/good", folder)
    names = [model.name for model in list_pretrained(cache)]
    assert names[len(bundled_names()) :] == ["e/card", "z/good"]


def test_a_cache_that_is_a_file_is_told_in_one_line(tmp_path, no_network, capsys):
    (tmp_path / "\x1b[31mfile").write_text("")
    with pytest.raises(NotADirectoryError, match="Expected the folder of a cache as `cache_dir` or HF_HOME's"):
        list_pretrained(tmp_path / "\x1b[31mfile")
    with pytest.raises(SystemExit) as ended:
        main(["--cache_dir", str(tmp_path / "\x1b[31mfile")])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("error: Expected the folder of a cache")
    assert err.endswith("\\x1b[31mfile is a file.\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["~nosuchuser", "x" * 100_000], ids=["no user", "long"])
def test_a_name_that_is_no_cache_is_no_traceback(tmp_path, no_network, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["--cache_dir", name])
    except SystemExit as ended:
        status = ended.code
    err = capsys.readouterr().err
    assert status == (0 if name == "~nosuchuser" else 2)  # a folder of that name is not there, and may be
    assert len(err) < 700
    assert err.count("\n") == (status == 2)


def test_what_a_table_shows_is_on_the_line_of_its_model():
    forged = PretrainedModel("ada/x\nham-best", "\x1b[31msort", {"1-32\x07": 0.5}, 1000, "cache")
    lines = table([forged]).splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_there_may_be_no_cache(tmp_path, no_network):
    assert [model.where for model in list_pretrained(tmp_path / "none")] == ["package"] * len(bundled_names())


def test_the_table_has_a_column_for_every_range():
    models = [
        PretrainedModel("ham-sort", "sort", {"1-32": 0.0, "33-128": 0.0004}, 125264, "package", ("answers",)),
        PretrainedModel("ada/mine", "sort", {"9-16": 1.0}, 900, "cache"),
        PretrainedModel("ada/other", "add", {}, 1234567, "cache", ("echo", "guide"), True),
    ]
    assert table(models) == (
        "name       task  supervision     certified  wrong, 1-32  wrong, 9-16  wrong, 33-128      size  where\n"
        "ham-sort   sort  answers                            0 %                      0.04 %    125 kB  package\n"
        "ada/mine   sort                                                100 %                     1 kB  cache\n"
        "ada/other  add   echo and guide  yes                                                 1,235 kB  cache"
    )


def test_the_command_prints_a_table_or_json(cache, capsys):
    assert main(["--cache_dir", str(cache)]) == 0
    assert capsys.readouterr().out == table(list_pretrained(cache)) + "\n"
    assert main(["--cache_dir", str(cache), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed[0]["supervision"] == ["echo", "guide"]
    listed = [PretrainedModel(**model | {"supervision": tuple(model["supervision"])}) for model in printed]
    assert listed == list_pretrained(cache)


def test_a_model_of_a_plugin_that_is_broken_hides_itself_only(cache, model, tmp_path, put, monkeypatch):
    info = tmp_path / "site" / "ham_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ham_broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lightning_ham.tasks]\nbroken = ham_broken:Broken\n")
    (tmp_path / "site" / "ham_broken.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for task in ("sort", "broken"):
        model.save_pretrained(tmp_path / task)
        file = tmp_path / task / "config.json"
        file.write_text(file.read_text().replace('"task": "sort"', f'"task": "{task}"'))
        put(f"ada/{task}", tmp_path / task)
    assert [listed.name for listed in list_pretrained(cache)] == [*bundled_names(), "ada/sort"]
    with pytest.raises(ImportError, match=r"the task 'broken' from .* of ham_broken 1\.0, but got: No module named"):
        from_pretrained("ada/broken", cache_dir=cache, local_files_only=True)
