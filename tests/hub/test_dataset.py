"""The episodes of an evaluation as a dataset: what is in it, and how it comes to the Hub."""

import json
import re

import pytest
import torch
import yaml
from huggingface_hub import DatasetCard

from lightning_ham.evaluation import evaluate
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.dataset import dataset_files, dataset_id
from lightning_ham.hub.files import CARD
from lightning_ham.tasks import built_in_tasks, get_task

LENGTHS = {"add": ["1-12"], "priority_queue": ["2-8"], "stack": ["2-8"], "queue": ["2-8"]}
NAMES = [task.name for task in built_in_tasks()]


def read(content):
    return [json.loads(line) for line in content.decode().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_instances_of_the_task_with_the_oracles_answers(name):
    files = dataset_files(name, "ada/x", LENGTHS.get(name, ["2-9"]), 40, seed=0)
    task = get_task(name)
    data = {path: read(content) for path, content in files.items() if path != CARD}
    assert len(data) == 1 + len(task.variants)
    for rows in data.values():
        assert len(rows) == 40
        for row in rows:
            instance = task.accept(json.loads(row["instance"]))
            assert row["length"] == task.instance_length(instance)
            assert row["answer"] == json.dumps(task.oracle(instance))
        assert len({row["instance"] for row in rows}) > 20


@pytest.mark.parametrize("name", ["sort", "stack"])
def test_they_are_the_episodes_of_an_evaluation_with_their_seed(name):
    """A model that says 0 is wrong in every bit of the right answers that is 1, as the evaluation counted."""
    torch.manual_seed(0)
    model = TrainedModel(name, controller_options={"controller_size": 6, "leaf_size": 4})
    for parameter in model.controller.head.parameters():
        parameter.data.zero_()
    ranges = [(1, 2)] if name == "sort" else [(2, 2)]
    wrong = [result["wrong_bits"] for result in evaluate(model, ranges, 500, seed=3)["results"]]
    counts = []
    for seed in (3, 4):
        (rows,) = (
            read(content) for path, content in dataset_files(name, "x/y", ranges, 500, seed).items() if path != CARD
        )
        task, ones = model.task, 0
        for row in rows:
            answer, length = json.loads(row["answer"]), row["length"]
            symbols = task.answer_to_symbols(
                [tuple(part) if isinstance(part, list) else part for part in answer], length
            )
            ones += int(symbols.sum()) + task.predicts_end
        counts.append(ones)
    assert counts[0] == wrong[0] != counts[1]


def test_the_card_names_every_file_once_and_is_what_the_hub_reads():
    files = dataset_files("merge", "ada/merge-episodes", ["1-4", (5, 8)], [30, 1000], seed=2)
    card = DatasetCard(files[CARD].decode())
    configs = {config["config_name"]: config["data_files"] for config in card.data.configs}
    assert configs == {
        "1-4": [{"split": "test", "path": "data/1-4.jsonl"}],
        "5-8": [{"split": "test", "path": "data/5-8.jsonl"}],
        "1-4 (grid)": [{"split": "test", "path": "data/1-4-grid.jsonl"}],
        "5-8 (grid)": [{"split": "test", "path": "data/5-8-grid.jsonl"}],
    }
    assert {path for path in files if path != CARD} == {data["path"] for [data] in configs.values()}
    assert card.data.license == "apache-2.0"
    assert card.data.size_categories == "1K<n<10K"
    assert {"merge", "task:merge"} <= set(card.data.tags)
    assert "| `5-8 (grid)` | 1,000 | 8 |" in card.text
    assert 'load_dataset("ada/merge-episodes", "1-4", split="test")' in card.text
    assert "evaluate MODEL --lengths 1-4 5-8 --episodes 30 1000 --seed 2\n" in card.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("srot", "a/b", ["1-2"], 1, 0), "Unknown task 'srot'; did you mean 'sort'"),
        (("sort", "a/b", ["9-2"], 1, 0), "9-2"),
        (("sort", "a/b", [], 1, 0), "Expected argument `lengths` to hold at least one range"),
        (("sort", "a/b", ["1-2"], [1, 2], 0), "Expected argument `episodes` to be one number or one for each"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataset_files(*arguments)


# To the Hub.


def test_a_dataset_is_pushed_once_with_a_version(hub, machine, name):
    command = ["push", "sort", name, "--dataset", "--lengths", "1-4", "5-6", "--episodes", "20", "--seed", "7"]
    pushed = machine.command(*command)
    assert (pushed.returncode, pushed.stdout) == (0, f"{hub.url}/datasets/{name}\n")
    expected = dataset_files("sort", name, ["1-4", "5-6"], 20, 7)
    stored = hub.files(f"datasets/{name}")
    assert {path: stored[path] for path in expected} == expected
    assert hub.load(f"datasets/{name}")["tags"].keys() == {"v1"}
    assert "Nothing has changed" in machine.command(*command).stderr
    assert not (hub.root / name).exists(), "no model of that name"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["srot", "ada/x", "--dataset"], "error: Unknown task 'srot'; did you mean 'sort'"),
        (["sort", "x", "--dataset"], "error: Expected organisation/name on the Hub"),
        (["sort", "ada/x", "--dataset", "--lengths", "0-3"], "error: Expected"),
        (["sort", "ada/x", "--dataset", "--episodes", "0"], "Expected a whole number of at least 1, but got '0'"),
        (["runs/x", "ada/x", "--lengths", "1-3"], "error: Expected --lengths with --dataset only."),
    ],
)
def test_wrong_input_is_one_line_and_status_2(hub, machine, arguments, message):
    failed = machine.command("push", *arguments)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (2, "", 1)
    assert message in failed.stderr
    assert hub.requests == []


# What a card says of it.


def test_ids_on_cards_are_those_of_datasets():
    assert {dataset_id(name) for name in NAMES} >= {
        "lightning-ham/sort-episodes",
        "lightning-ham/priority-queue-episodes",
    }
    assert all(re.fullmatch(r"[\w-]+/[\w-]+", dataset_id(name)) for name in NAMES)


def test_results_also_go_to_the_hubs_newer_form_and_go_when_they_are_gone(hub, machine, name, model, tmp_path):
    evaluation = evaluate(model, [(1, 1), (2, 4)], 50, seed=3)
    evaluation["results"][0]["sequence_error"] = 0.25
    model.save_pretrained(tmp_path / "measured", evaluation)
    code = f"""
from pathlib import Path
from lightning_ham.hub.push import push_folder
push_folder(Path({str(tmp_path / "measured")!r}), {name!r})
"""
    assert machine.python(code).returncode == 0
    entries = yaml.safe_load(hub.files(name)[".eval_results/lightning-ham.yaml"])
    assert entries == [
        {
            "dataset": {"id": "lightning-ham/sort-episodes", "task_id": lengths},
            "value": 1 - result["sequence_error"],
            "notes": "share of right sequences, 50 episodes",
        }
        for lengths, result in zip(("1-1", "2-4"), evaluation["results"], strict=True)
    ]
    model.save_pretrained(tmp_path / "measured")
    assert machine.python(code).returncode == 0
    assert hub.files(name).keys() == {"config.json", "model.safetensors", "README.md", ".gitattributes"}


# A card that the Hub refuses.


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_refused_card_is_told_before_anything_is_created(hub, machine, name, folder, kind):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code = f"""
from pathlib import Path
from lightning_ham.hub.push import push_files
push_files({{"README.md": Path({str(folder / CARD)!r})}}, {name!r}, kind={kind!r})
"""
    good = (folder / CARD).read_text()
    (folder / CARD).write_text(good.replace("apache-2.0", "mine"))
    failed = machine.python(code)
    assert failed.returncode == 1
    message = failed.stderr.splitlines()[-1]
    assert message.startswith(f"ValueError: Expected to push to {name}, but {hub.url} refuses its card: ")
    assert message.endswith(". Nothing was uploaded.")
    assert "must be" in message or "configs" in message
    assert hub.requests == [("POST", "/api/validate-yaml")]
    (folder / CARD).write_text(good)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
