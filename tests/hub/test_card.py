"""The card says what was measured, in a form that the Hub reads, and what it shows can be run."""

import re

import pytest
from huggingface_hub import ModelCard

from lightning_ham.hub import HAMModel
from lightning_ham.training.evaluation import evaluate

TRAINING = {
    "recipe": "sort",
    "command": "python -m lightning_ham.fit sort \\\n  --data.batch_size 64",
    "seed": 7,
    "updates": 12_000,
    "episodes": 3_072_000,
    "seconds": 754.3,
    "machine": "2 cores | of a laptop",
    "hyper_parameters": {"learning_rate": 0.003, "note": "a\n```\nb"},
}


@pytest.fixture
def evaluation(model):
    return evaluate(model, [(1, 4), (5, 8)], 50, seed=3)


@pytest.fixture
def card(model, tmp_path, evaluation):
    model.save(tmp_path / "ham-tiny", evaluation, TRAINING)
    return ModelCard.load(tmp_path / "ham-tiny" / "README.md")


def test_metadata_is_what_the_hub_reads(card):
    assert card.data.library_name == "lightning-ham"
    assert card.data.license == "apache-2.0"
    assert card.data.model_name == "ham-sort"
    assert {"lightning-ham", "sort", "arxiv:1602.03218"} <= set(card.data.tags)


def test_metrics_are_read_back_as_they_were_measured(card, evaluation):
    read = {(metric.dataset_config, metric.metric_type): metric.metric_value for metric in card.data.eval_results}
    assert read == {
        ("-".join(map(str, result["lengths"])), name): result[name]
        for result in evaluation["results"]
        for name in ("sequence_error", "symbol_error", "bit_error")
    }
    assert all(isinstance(value, float) for value in read.values())
    metric = next(metric for metric in card.data.eval_results if metric.dataset_config == "5-8")
    assert metric.dataset_name == "sort, lengths 5-8"
    assert metric.dataset_args == {"lengths": [5, 8], "capacity": 8, "episodes": 50, "seed": 3}


def test_results_have_a_row_for_every_range(card, evaluation):
    evaluation["results"][0] |= {"wrong_sequences": 50, "sequence_error": 1.0}
    rows = [line for line in card.text.splitlines() if re.match(r"\| \d+-\d+ \|", line)]
    assert [row.split(" | ")[:3] for row in rows] == [["| 1-4", "4", "50"], ["| 5-8", "8", "50"]]
    low, high = evaluation["results"][1]["interval"]
    assert f"| {100 * low:.3g} % to {100 * high:.3g} % |" in rows[1]
    assert "fresh episodes drawn with seed 3" in card.text
    assert "evaluated on lengths 1-4, 5-8 only." in card.text


def test_training_is_told_in_full(card):
    for line in (
        "| recipe | sort |",
        "| seed | 7 |",
        "| updates | 12,000 |",
        "| episodes | 3,072,000 |",
        "| time | 12 min 34 s |",
        "| machine | 2 cores \\| of a laptop |",
        "    python -m lightning_ham.fit sort \\",
        '      "learning_rate": 0.003,',
        '      "note": "a\\n```\\nb"',
    ):
        assert f"\n{line}\n" in card.text, line


def test_nothing_is_claimed_that_was_not_measured(model, folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results is None
    assert "was not evaluated before it was saved" in card.text
    assert "The model was evaluated on no length." in card.text
    assert "How this model was trained was not recorded" in card.text
    assert not re.search(r"\d %", card.text)


def test_citation_and_value_ranges(card):
    assert "arXiv:1602.03218" in card.text
    assert "An instance is a list of (key, value) pairs, both from 0 to 31." in card.text
    assert (
        f"{HAMModel('sort', controller_options={'controller_size': 6, 'leaf_size': 4}).num_parameters:,} par"
        in card.text
    )


@pytest.mark.parametrize("task", ["add", "merge", "reverse", "search", "sort"])
def test_snippet_runs_and_prints_what_the_card_says(task, tmp_path, monkeypatch, capsys):
    HAMModel(task).save(tmp_path / f"ham-{task}")
    text = (tmp_path / f"ham-{task}" / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    expected = re.search(r"prints the model's own answer:\n\n    (.*)\n", text)[1]
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "merge"}, "Expected an evaluation of this model, with task 'sort', but got 'merge'."),
        ({"num_parameters": 3}, "but got 3."),
        ({"controller": "other"}, "with controller 'lstm_ham', but got 'other'."),
    ],
)
def test_evaluation_of_another_model_is_refused(model, evaluation, tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model.save(tmp_path / "saved", evaluation | change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"seed": None}, {"extra": 1}])
def test_training_with_other_keys_is_refused(model, tmp_path, change):
    training = {key: value for key, value in (TRAINING | change).items() if value is not None}
    with pytest.raises(ValueError, match="Expected argument `training` to have the keys recipe, command, seed, "):
        model.save(tmp_path / "saved", training=training)
