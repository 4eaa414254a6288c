"""The tables match the measured data."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_ham.evaluation import wilson_interval
from lightning_ham.hub.places import bundled_names
from lightning_ham.hub.supervision import in_words, supervision
from lightning_ham.models import TaskModel
from lightning_ham.reproduction import records, report
from lightning_ham.reproduction.report import REPORT, render_models, render_report
from lightning_ham.results import main
from lightning_ham.runs.folder import write_json
from lightning_ham.runs.recipe.catalog import find_recipe
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.tasks import built_in_tasks, task_names

ROOT = Path(__file__).parent.parent
BARS = {task.name: task.bar for task in built_in_tasks()}


def result(lengths, wrong, episodes=10_000, bit_error=0.0):
    return {
        "lengths": list(lengths),
        "capacity": 1 << (lengths[1] - 1).bit_length(),
        "episodes": episodes,
        "wrong_sequences": wrong,
        "sequence_error": wrong / episodes,
        "interval": list(wilson_interval(wrong, episodes)),
        "symbol_error": bit_error,
        "wrong_bits": wrong,
        "bit_error": bit_error,
        "episodes_per_second": 1000.0,
        "mistakes": {"end": 0, "order": wrong, "symbols": 0, "examples": []},
    }


def training_run(seed, near, far, seconds=600.0, first=None, task="sort"):
    measured = [result((1, 32), near), result((33, 128), far, bit_error=far / 1e6), result((129, 1024), 1000, 1000)]
    point = {"update": 100, "episodes": 25_600, "seconds": first, "capacity": 32, "errors": {"1-32": 0.009}}
    return {
        "seed": seed,
        "command": f"python -m lightning_ham.fit {task} --seed_everything={seed}",
        "num_parameters": 30_764,
        "updates": 1000 * seed,
        "episodes": 256_000 * seed,
        "seconds": seconds,
        "trained_on": "up to 32",
        "supervision": "answers",
        "max_time": "00:00:20:00",
        "first_at_one_percent": None if first is None else point,
        "reached_bar": records.meets(measured, BARS[task]),
        "weights_sha256": f"{seed:064x}",
        "machine": "a laptop",
        "versions": {"python": "3.11.7"},
        "commit": None,
        "evaluation_seed": 0,
        "results": measured,
    }


def entry(model, runs, task="sort"):
    return {
        "task": task,
        "model": model,
        "recipe": task,
        "overrides": [],
        "recipe_digest": "0" * 12,
        "bar": BARS[task],
        "runs": runs,
    }


OURS = entry(
    "ham",
    [training_run(1, 0, 4, first=300), training_run(2, 0, 10, first=2400), training_run(3, 2, 0, first=None)],
)
LSTM = entry("lstm", [training_run(1, 9_990, 10_000)])


def rows(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_overview_has_medians_and_counts_of_seeds():
    text = render_report([OURS, LSTM], [], "Words.")
    assert rows(text, "| task |") == [
        "| task | supervision | bar | reached the bar | 1 % within 30 min | HAM (ours) | LSTM | paper's HAM |"
    ]
    assert rows(text, "| sort |") == [
        "| sort | answers | 0 % / 0.1 % | 2 of 3 | 1 of 3 | 0 % / 0.04 % | 99.9 % / 100 % | 0.04 % / 0.24 % |"
    ]
    assert text.endswith("## What was found\n\nWords.\n")


def test_a_task_has_the_errors_of_every_model_at_all_lengths_beside_the_papers():
    text = render_report([OURS, LSTM], [], "")
    low, high = (f"{100 * end:.3g} %" for end in wilson_interval(4, 10_000))
    expected = f"|  | 33-128 | 4 of 10,000 | 0.04 % ({low} to {high}) | 0 % to 0.1 % | 0.0004 % | 0.24 % |"
    assert rows(text, "|  | 33-128 | 4 ") == [expected]
    assert rows(text, "| LSTM | 1-32 |")[0].endswith("| 99 % |")
    assert rows(text, "| LSTM | answers |") == [
        "| LSTM | answers | up to 32 | 30,764 | 1 | 0 of 1 | never | 1,000 | 10 min 0 s |"
    ]
    assert rows(text, "| HAM (ours) | answers |") == [
        "| HAM (ours) | answers | up to 32 | 30,764 | 3 | 2 of 3 | 22 min 30 s, 1 never | 2,000 | 10 min 0 s |"
    ]
    assert rows(text, "|  | 3 | 2 of 10,000 at 1-32, 0 of 10,000 at 33-128")[0].endswith("| `000000000000` |")
    assert text.count("| missed |") == 2
    assert "- `python -m lightning_ham.fit sort --seed_everything=2` (a laptop)" in text


def test_every_table_of_models_tells_the_supervision():
    told = [training_run(seed, 0, 0) | {"supervision": words} for seed, words in ((1, "echo"), (2, "echo and guide"))]
    text = render_report([entry("ham", told), LSTM], [bundled_model()], "")
    assert rows(text, "| sort |")[0].startswith("| sort | echo or echo and guide | 0 % / 0.1 % |")
    assert rows(text, "| HAM (ours) | echo")[0].startswith(
        "| HAM (ours) | echo or echo and guide | up to 32 | 30,764 |"
    )
    assert rows(text, "| LSTM | answers |")
    assert rows(text, "| `ham-merge` |")[0].endswith(" | guide | up to 64 | 12 min 34 s, seed 5, a laptop |")
    for word in ("answers", "echo", "state", "guide"):
        assert len(rows(text, f"- *{word}*: ")) == 1


def test_what_was_cut_off_is_told():
    in_time, cut_off = training_run(1, 0, 0, seconds=1199.9), training_run(2, 0, 0, seconds=1200.3)
    text = render_report([entry("ham", [in_time, cut_off, cut_off | {"seed": 3, "max_time": None}])], [], "")
    assert "| 20 min 0 s |" in rows(text, "| HAM (ours) | 1 |")[0]
    assert "| 20 min 0 s, cut off |" in rows(text, "|  | 2 |")[0]
    assert "| 20 min 0 s |" in rows(text, "|  | 3 |")[0]


def test_every_bar_is_the_bar_of_a_task_at_both_lengths():
    for bar in BARS.values():
        assert set(bar) == {"1-32", "33-128"}
    assert {"reverse", "search", "merge", "sort", "add"} <= set(BARS) & set(task_names())
    assert records.meets([result((1, 32), 0), result((33, 128), 10)], BARS["sort"])
    assert not records.meets([result((1, 32), 0), result((33, 128), 11)], BARS["sort"])
    assert not records.meets([result((1, 32), 0)], BARS["sort"]), "not measured is not reached"


def bundled_model(wrong=3):
    model = TaskModel("merge")
    evaluation = {
        "task": "merge",
        "controller": "lstm_ham",
        "num_parameters": model.num_parameters,
        "seed": 0,
        "results": [{**result((1, 32), wrong, 2500), "variant": "grid"}, result((1, 2), 10, 10)],
    }
    hyper_parameters = {"data": {"capacity": 64}, "model": {"supervision": {"guided_fraction": 0.5}}}
    training = {"seconds": 754.0, "seed": 5, "machine": "a laptop", "hyper_parameters": hyper_parameters}
    return records.Bundled("ham-merge", evaluation, training)


def test_table_of_the_models():
    header, _, first, second = render_models([bundled_model()], []).splitlines()
    assert header.startswith("| model | lengths | wrong sequences | share (95 % interval) | the paper's model |")
    assert first == (
        "| `ham-merge` | 1-32 (grid) | 3 of 2,500 | 0.12 % (0.0408 % to 0.352 %) | 0 % | guide | up to 64 "
        "| 12 min 34 s, seed 5, a laptop |"
    )
    assert second == "|  | 1-2 | 10 of 10 | 100 % (72.2 % to 100 %) |  |  |  |  |", "the paper has no such lengths"
    beside = entry("lstm", [training_run(1, 8_800, 9_900, task="merge")], "merge")
    for measured in beside["runs"][0]["results"]:
        measured["variant"] = "grid"
    header, _, first, _ = render_models([bundled_model()], [beside]).splitlines()
    assert "| share (95 % interval) | LSTM | the paper's model |" in header
    assert "(0.0408 % to 0.352 %) | 88 % | 0 % |" in first


@pytest.fixture
def checkout(tmp_path):
    for name in ("results", "model_cards"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "README.md", tmp_path)
    return tmp_path


def test_pages_of_the_checkout_are_up_to_date(checkout):
    report.write(checkout)
    for name in ("README.md", REPORT):
        assert (checkout / name).read_text() == (ROOT / name).read_text(), (
            f"{name}: run python -m lightning_ham.results"
        )


def test_pages_change_with_what_was_measured(checkout, capsys):
    write_json(checkout / "results" / "sort-ham.json", OURS)
    (record,) = (checkout / "model_cards").glob("ham-reverse.json")
    changed = json.loads(record.read_text())
    changed["evaluation"]["results"][0] |= {"wrong_sequences": 123, "sequence_error": 0.0123}
    record.write_text(json.dumps(changed))
    assert main(["--output", str(checkout)]) == 0
    assert capsys.readouterr().out == f"Wrote {checkout / REPORT}\nWrote {checkout / 'README.md'}\n"
    assert "2 of 3" in (checkout / REPORT).read_text()
    assert "| `ham-reverse` | 1-32 | 123 of" in (checkout / "README.md").read_text()
    assert "| `ham-reverse` | 1-32 | 123 of" in (checkout / REPORT).read_text()


@pytest.mark.parametrize("there", [[], ["results"], ["model_cards"]])
def test_outside_a_checkout_nothing_is_written(there, tmp_path, capsys, monkeypatch):
    """Neither in a folder that was named, nor where a wheel's package is."""
    for name in there:
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["--output", "."])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Expected a checkout of lightning_ham with the folder ")
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(there)


def test_a_package_outside_a_checkout_writes_nothing_beside_itself(tmp_path):
    site = tmp_path / "site-packages"
    shutil.copytree(ROOT / "lightning_ham", site / "lightning_ham", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", site / "lightning_ham" / "recipes")
    shutil.copy(ROOT / "model_cards" / "card.md.jinja", site / "lightning_ham" / "hub")
    for command in ("results", "cards", f"bundle {ROOT} ham-sort"):
        ran = subprocess.run(
            [sys.executable, "-m", *f"lightning_ham.{command}".split()],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        message = (
            f"error: Expected a checkout of lightning_ham with the folder {site / 'results'}, but it is not there; "
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"{message}name one with --output.\n")
    assert [path.name for path in site.iterdir()] == ["lightning_ham"]
    assert not (site / "lightning_ham" / "hub" / "weights" / "ham-sort" / "learning_curve.png").exists()


def test_a_readme_without_its_marks_is_refused():
    with pytest.raises(ValueError, match="one of them is missing"):
        report.replace("<!-- results:begin -->\n", "table")


def told_by_recipe(measured):
    cli = RecipeCLI(find_recipe(measured["recipe"]), measured["overrides"])
    return in_words(supervision(measured["task"], yaml.safe_load(cli.resolved())))


@pytest.mark.filterwarnings("ignore")
def test_committed_results_agree_with_themselves():
    names = set(bundled_names())
    assert {model.name for model in records.read_bundled(ROOT / "model_cards")} == names
    for measured in records.read_results(ROOT / "results"):
        assert (ROOT / "results" / f"{measured['task']}-{measured['model']}.json").is_file()
        for run in measured["runs"]:
            again = copy.deepcopy(run)
            for entry in again["results"]:
                wrong, episodes = entry["wrong_sequences"], entry["episodes"]
                entry["sequence_error"] = wrong / episodes
                entry["interval"] = list(wilson_interval(wrong, episodes))
                kinds = entry["mistakes"]
                assert kinds["end"] + kinds["order"] + kinds["symbols"] == wrong
            assert again == run
            assert run["supervision"] == told_by_recipe(measured)
            assert run["reached_bar"] == records.meets(run["results"], BARS[measured["task"]])
