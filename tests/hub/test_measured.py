"""What a model's card says was measured, and what anybody may have written there instead."""

import time

import pytest

from lightning_ham import from_pretrained
from lightning_ham.evaluation import evaluate
from lightning_ham.hub.measured import CardFacts, read_card, read_measured
from lightning_ham.hub.places import BUNDLED, bundled_names

RESULT = """\
---
model-index:
- name: ham-sort
  results:
  - dataset: {{config: {lengths}}}
    metrics:
    - {{type: bit_error, value: 0.5}}
    - {{type: sequence_error, value: {value}}}
  - dataset: {{config: 33-128}}
    metrics: [{{type: sequence_error, value: 0.25}}]
---
# Card
"""


@pytest.mark.parametrize("name", bundled_names())
def test_of_every_bundled_model_the_errors_are_known(name):
    measured = read_measured(BUNDLED / name / "README.md")
    assert list(measured) == [(1, 32), (33, 128), (129, 1024)]
    assert measured[1, 32] == 0


def test_a_model_knows_what_it_was_saved_with(model, tmp_path):
    evaluation = evaluate(model, ["1-4", "5-8"], episodes=10, seed=0)
    evaluation["results"][0]["sequence_error"] = 0.125
    model.save_pretrained(tmp_path / "mine", evaluation)
    assert from_pretrained(tmp_path / "mine").measured == {
        (1, 4): 0.125,
        (5, 8): evaluation["results"][1]["sequence_error"],
    }
    model.save_pretrained(tmp_path / "other")
    assert from_pretrained(tmp_path / "other").measured == model.measured == {}


def test_what_cannot_be_an_error_or_a_range_costs_its_own_figure_only(tmp_path):
    card = tmp_path / "README.md"
    for lengths, value in [
        *(
            ("1-32", value)
            for value in (
                ".nan",
                "-.inf",
                "-0.1",
                "1.5",
                "1" + "0" * 400,
                "9" * 20_000,
                "true",
                "true1",
                "[0.1]",
                "null",
                "''",
            )
        ),
        *((lengths, 0.1) for lengths in ("all", "[1]", "null", "{a: 1}", "1-2-3", "1.5")),
        *(("9" * count, 0.1) for count in (1, 19, 20_000)),
        ("9" * 19 + "-" + "9" * 19, 0.1),
    ]:
        card.write_text(RESULT.format(lengths=lengths, value=value))
        assert read_measured(card) == {(33, 128): 0.25}, (lengths, value)
    for value, share in [("0.1", 0.1), ("'0.1'", 0.1), ("1e-05", 1e-05), ("1.0e-05", 1e-05), ("0", 0), ("1", 1)]:
        card.write_text(RESULT.format(lengths="1-32", value=value))
        assert read_measured(card) == {(1, 32): share, (33, 128): 0.25}


@pytest.mark.parametrize("value", ["9" * 20_000, "'" + " x" * 10_000 + "'"], ids=["digits", "text"])
def test_a_long_value_elsewhere_costs_nothing(value, tmp_path):
    card = tmp_path / "README.md"
    card.write_text(f"---\na: {value}\n{RESULT.format(lengths='1-32', value=0)[4:]}")
    start = time.process_time()
    assert read_measured(card) == {(1, 32): 0, (33, 128): 0.25}
    assert time.process_time() - start < 2


HOSTILE = {
    "levels": "---\na: " + "[" * 3000 + "]" * 3000 + "\n---\n",
    "few levels": "---\n" + RESULT.format(lengths="1-32", value=0)[4:-14] + "b: " + "[" * 30 + "]" * 30 + "\n---\n",
    "aliases": "---\na: &a [x, x]\nb: &b [*a, *a]\n" + RESULT.format(lengths="1-32", value=0)[4:],
    "long": "---\na: '" + " x" * 10**6 + "'\n" + RESULT.format(lengths="1-32", value=0)[4:],
    "object": "---\nmodel-index: !!python/object/apply:os.getcwd []\n---\n",
    "no end": RESULT.format(lengths="1-32", value=0).replace("\n---\n# Card", ""),
    "text before": "# Card\n" + RESULT.format(lengths="1-32", value=0),
    "list": "---\n- model-index\n---\n",
    "results": "---\nmodel-index: [{results: 5}, 7, {results: [3, {metrics: [4, {type: sequence_error}]}]}]\n---\n",
    "control": "---\na: \x1b[2J\n---\n",
    "empty": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_or_damaged_card_says_nothing_and_takes_no_time(text, tmp_path):
    card = tmp_path / "README.md"
    card.write_bytes(text.encode())
    start = time.process_time()
    assert read_measured(card) == {}
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("tags", "kinds"),
    [
        ("[sort, supervision:answers]", ("answers",)),
        ("[supervision:guide, 'supervision:state', supervision:echo, supervision:guide]", ("echo", "state", "guide")),
        ("[supervision:hints, 7, null, [supervision:echo], {supervision:state: 1}]", ("hints",)),
        ("[supervision:answers, supervision:guide]", ("guide",)),
        (
            "['supervision:', supervision:none, supervision:Echo, ' supervision:echo', supervision:echo x, guide]",
            (),
        ),
        (r'["supervision:echo\n", "supervision:\e[31mguide", "supervision:supervision:state"]', ()),
        ("supervision:echo", ()),
        ("{supervision:echo: supervision:echo}", ()),
        ("[supervision:" + "echo" * 10_000 + ", supervision:state]", ("state",)),
        ("[" + "supervision:echo, " * 2_000 + "supervision:guide]", ("echo", "guide")),
        ("null", ()),
    ],
)
def test_only_known_words_of_supervision_are_believed(tags, kinds, tmp_path):
    card = tmp_path / "README.md"
    card.write_text(f"---\ntags: {tags}\n{RESULT.format(lengths='1-32', value=0)[4:]}")
    start = time.process_time()
    assert read_card(card).supervision == kinds
    assert time.process_time() - start < 2
    assert read_measured(card) == {(1, 32): 0, (33, 128): 0.25}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_or_damaged_card_tells_no_supervision(text, tmp_path):
    card = tmp_path / "README.md"
    card.write_bytes(text.encode())
    assert read_card(card) == CardFacts({}, ())


def test_no_card_at_all(tmp_path):
    assert read_measured(tmp_path / "README.md") == read_measured(tmp_path) == {}
    (tmp_path / "README.md").write_bytes(b"\xff\xfe---\n\x00")
    assert read_measured(tmp_path / "README.md") == {}
