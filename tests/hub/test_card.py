"""The card says what was measured, in a form that the Hub reads, and what it shows can be run."""

import re

import pytest
from huggingface_hub import ModelCard

from lightning_ham.evaluation import evaluate
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.card import Comparison, missed_bar, render_card
from lightning_ham.hub.files import CERTIFICATE, FILES, PICTURES
from lightning_ham.hub.places import BUNDLED, bundled_names

TRAINING = {
    "recipe": "sort",
    "command": "python -m lightning_ham.fit sort \\\n  --data.batch_size 64",
    "seed": 7,
    "updates": 12_000,
    "episodes": 3_072_000,
    "seconds": 754.3,
    "machine": "2 cores | of a laptop",
    "versions": {"python": "3.11.7", "torch": "2.13.0", "lightning_ham": "0.1.0"},
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "wandb_url": "https://wandb.ai/someone/lightning-ham/runs/1a2b3c4d",
    "curve": [
        {"update": 50, "episodes": 800, "seconds": 9, "capacity": 2, "errors": {"current": 0.05}},
        {"update": 100, "episodes": 1600, "seconds": 20, "capacity": 4, "errors": {"current": 0.01, "1-4": 0.01}},
    ],
    "hyper_parameters": {"learning_rate": 0.003, "note": "a\n```\nb"},
}


@pytest.fixture
def evaluation(model):
    return evaluate(model, [(1, 4), (5, 8)], 50, seed=3)


@pytest.fixture
def card(model, tmp_path, evaluation):
    model.save_pretrained(tmp_path / "ham-tiny", evaluation, TRAINING)
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
        f"{TrainedModel('sort', controller_options={'controller_size': 6, 'leaf_size': 4}).num_parameters:,} par"
        in card.text
    )


@pytest.mark.parametrize("task", ["add", "merge", "reverse", "search", "sort"])
def test_snippet_runs_and_prints_what_the_card_says(task, tmp_path, monkeypatch, capsys):
    TrainedModel(task).save_pretrained(tmp_path / f"ham-{task}")
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
        model.save_pretrained(tmp_path / "saved", evaluation | change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"seed": None}, {"extra": 1}])
def test_training_with_other_keys_is_refused(model, tmp_path, change):
    training = {key: value for key, value in (TRAINING | change).items() if value is not None}
    with pytest.raises(ValueError, match="Expected argument `training` to have the keys recipe, command, seed, "):
        model.save_pretrained(tmp_path / "saved", training=training)


# What is told beside the errors.


def row(text, start):
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return found


def test_errors_stand_beside_those_of_others_and_of_the_paper(model, evaluation):
    evaluation["results"][0] |= {"lengths": [1, 32], "sequence_error": 0.0012}
    others = [Comparison("LSTM (median of 5 seeds)", 205_195, {"1-32": 0.987, "129-1024": 1.0})]
    text = render_card(model, "ham-tiny", evaluation, TRAINING, others)
    assert row(text, "|  | parameters |") == "|  | parameters | 1-32 | 5-8 |"
    mine = f"{100 * evaluation['results'][1]['sequence_error']:.3g} %"
    assert row(text, "| this model |") == f"| this model | {model.num_parameters:,} | 0.12 % | {mine} |"
    assert row(text, "| LSTM (median") == "| LSTM (median of 5 seeds) | 205,195 | 98.7 % |  |"
    assert row(text, "| the paper's HAM |") == "| the paper's HAM |  | 0.04 % |  |"
    assert row(text, "| the paper's LSTM |") == "| the paper's LSTM |  | 99 % |  |"
    assert "| this model |" not in render_card(model, "x", evaluation | {"results": evaluation["results"][1:]})


def test_wrong_episodes_are_described(model, evaluation):
    example = {"length": 6, "timestep": 2, "expected": "(9, 4)", "got": "(9, 1)", "wrong_symbols": 2, "symbols": 7}
    first, second = evaluation["results"]
    first |= {"episodes": 50, "wrong_sequences": 0}
    second |= {"wrong_sequences": 5, "mistakes": {"end": 1, "order": 4, "symbols": 0, "examples": [example]}}
    text = render_card(model, "ham-tiny", evaluation)
    assert (
        "- At lengths 5-8, 5 of 50 sequences are wrong (the right symbols in another order: 4; an end too early or too "
        "late: 1). The shortest of them, of length 6, first goes wrong at timestep 2, with (9, 1) instead of (9, 4); 2 "
        "of its 7 outputs are wrong.\n"
    ) in text
    assert "At lengths 1-4" not in text


def test_limits_tell_widths_and_lengths(card, model):
    assert "- Cells of 10 numbers, outputs of 11 bits, the end among them: " in card.text
    assert "It was trained on" not in card.text  # the hyper-parameters of this test do not say
    training = TRAINING | {"hyper_parameters": {"data": {"capacity": 32}}}
    assert "- It was trained on lengths up to 32.\n" in render_card(model, "x", None, training)
    assert "outputs of 5 bits: wider" in render_card(TrainedModel("search"), "x")


@pytest.mark.parametrize(
    ("task", "options", "tags", "words", "explained"),
    [
        (
            "sort",
            {"supervision": {"hint_weight": 1.0, "guided_fraction": 0.0}},
            ["supervision:answers"],
            "answers",
            "beside the inputs. *Answers*: only the bits that are scored.",
        ),
        (
            "priority_queue",
            {"hint_weight": 2.0, "guided_fraction": 1.0},  # as it was recorded before options stood in groups
            ["supervision:echo", "supervision:state", "supervision:guide"],
            "echo, state and guide",
            "beside the inputs and the answers. *Echo*: further outputs that repeat a part of the input or of the "
            "answer, never scored. *State*: further outputs that tell what state the memory is in, never scored. "
            "*Guide*: which leaf to attend to.",
        ),
    ],
)
def test_supervision_is_a_row_and_tags_and_is_explained(task, options, tags, words, explained):
    controller = "raw_ham" if task == "priority_queue" else "lstm_ham"
    training = TRAINING | {"hyper_parameters": {"model": options}}
    card = ModelCard(render_card(TrainedModel(task, controller), "x", None, training))
    assert [tag for tag in card.data.tags if tag.startswith("supervision")] == tags
    assert f"\n| supervision | {words} |\n" in card.text
    assert f"|\n\n*Supervision* is what training told the model {explained}\n\nCommand:\n" in card.text
    assert ("which leaves to attend to (`guided_fraction`)" in card.text) == ("guide" in words)


def test_of_an_unknown_training_no_supervision_is_told(folder):
    card = ModelCard.load(folder / "README.md")
    assert not [tag for tag in card.data.tags if tag.startswith("supervision")]
    assert "upervision" not in card.text


def test_a_missed_bar_is_told_and_no_other(model, evaluation):
    errors = {"1-4": 0.0, "5-8": 0.471}
    for result, error in zip(evaluation["results"], errors.values(), strict=True):
        result["sequence_error"] = error
    bar = {"1-4": 0.0, "5-8": 0.002, "9-16": 0.01}
    assert missed_bar(bar, evaluation, TRAINING["curve"]) == {"5-8": 0.471, "9-16": None}
    curve = [*TRAINING["curve"], {**TRAINING["curve"][-1], "errors": {"5-8": 0.0, "9-16": 0.02}}]
    assert missed_bar(bar, evaluation, curve) == {"5-8": 0.471, "9-16": 0.02}
    text = render_card(model, "x", evaluation, TRAINING | {"bar": bar, "curve": curve})
    assert (
        "- It missed the bar of its recipe at lengths 5-8: at most 0.2 % of the sequences were to be wrong, and\n"
        "  47.1 % are.\n"
    ) in text
    assert "bar of its recipe at lengths 9-16: at most 1 % of the sequences were to be wrong, and\n  2 % are." in text
    assert "bar of its recipe at lengths 1-4" not in text
    for training in (TRAINING, TRAINING | {"bar": {}}, TRAINING | {"bar": {"1-4": 0.0}}):
        assert "bar of its recipe" not in render_card(model, "x", evaluation, training)


def test_training_names_its_commit_versions_and_run(card, model):
    assert "\n| commit | `0123456789abcdef0123456789abcdef01234567` |\n" in card.text
    assert "\n| versions | Python 3.11.7, torch 2.13.0, lightning_ham 0.1.0 |\n" in card.text
    assert "\n| W&B | <https://wandb.ai/someone/lightning-ham/runs/1a2b3c4d> |\n" in card.text
    assert {result.source_url for result in card.data.eval_results} == {TRAINING["wandb_url"]}
    without = render_card(model, "x", None, TRAINING | {"commit": None, "wandb_url": None})
    assert "| commit |" not in without
    assert "W&B" not in without


def test_hyper_parameters_are_folded(card):
    folded = card.text.partition("<details><summary>All hyper-parameters</summary>\n")[2].partition("</details>")[0]
    assert '"learning_rate": 0.003' in folded


@pytest.mark.parametrize("controller", ["lstm", "lstm_attention"])
def test_a_comparison_model_is_called_what_it_is(controller, tmp_path):
    model = TrainedModel("sort", controller, {"controller_size": 4})
    evaluation = evaluate(model, [(1, 4)], 10, seed=3)
    model.save_pretrained(tmp_path / "other", evaluation)
    card = ModelCard.load(tmp_path / "other" / "README.md")
    assert card.data.model_name == f"{controller.replace('_', '-')}-sort"
    assert "hierarchical-attentive-memory" not in card.data.tags
    assert "comparison-model" in card.data.tags
    assert "it has no such memory itself" in card.text
    assert "A [Hierarchical Attentive Memory]" not in card.text
    assert "hierarchical-attentive-memory" in ModelCard(render_card(TrainedModel("sort"), "x")).data.tags


def test_pictures_are_saved_beside_the_card_that_shows_them(model, tmp_path):
    folder = tmp_path / "ham-tiny"
    pictures = {"learning_curve.png": b"a curve", "attention.png": b"a path"}
    model.save_pretrained(folder, pictures=pictures)
    assert {path.name for path in folder.iterdir()} == {*FILES, *PICTURES} - {CERTIFICATE}
    for name, content in pictures.items():
        assert (folder / name).read_bytes() == content
        assert f".]({name})\n" in (folder / "README.md").read_text()
    model.save_pretrained(folder, pictures={"attention.png": b"another path"})
    assert {path.name for path in folder.iterdir()} == {*FILES, "attention.png"} - {CERTIFICATE}
    assert "learning_curve" not in (folder / "README.md").read_text()
    (folder / "mine.txt").touch()
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {*FILES, "mine.txt"} - {CERTIFICATE}


def test_other_pictures_are_refused(model, tmp_path):
    with pytest.raises(
        ValueError, match=r"Expected pictures named learning_curve\.png or attention\.png, but got '\.\./x"
    ):
        model.save_pretrained(tmp_path / "saved", pictures={"../x.png": b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", bundled_names())
def test_snippet_of_a_bundled_card_runs(name, capsys):
    text = (BUNDLED / name / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(snippet, "README.md", "exec"), {})
    assert f"prints the model's own answer:\n\n    {capsys.readouterr().out}" in text
