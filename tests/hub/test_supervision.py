"""What a training told its model, in words: from its task and its hyper-parameters, whatever they are called."""

import pytest

from lightning_ham.hub.supervision import MEANINGS, explained, guided_fraction, in_order, in_words, supervision
from lightning_ham.tasks import built_in_tasks, get_task
from lightning_ham.tasks.search import Search


def training(hint_weight=1.0, guided_fraction=0.0):
    return {"model": {"supervision": {"hint_weight": hint_weight, "guided_fraction": guided_fraction}}}


BESIDE_ANSWERS = {
    "search": "echo",
    "add": "echo",
    "stack": "state",
    "queue": "state",
    "priority_queue": "echo and state",
}


@pytest.mark.parametrize("name", [task.name for task in built_in_tasks()])
def test_words_of_every_task(name):
    def words(task, **options):
        return in_words(supervision(task, training(**options)))

    for task in (name, get_task(name)):
        assert words(task) == BESIDE_ANSWERS.get(name, "answers")
        assert words(task, hint_weight=0.0) == "answers"
        assert words(task, hint_weight=0, guided_fraction=0.1) == "guide"
    assert words("search", guided_fraction=1) == "echo and guide"
    assert words("priority_queue", hint_weight=0.1, guided_fraction=0.5) == "echo, state and guide"
    assert words("queue", hint_weight=2, guided_fraction=0.5) == "state and guide"


@pytest.mark.parametrize(
    ("hyper_parameters", "kinds"),
    [
        ({"model": {"hint_weight": 2.0, "guided_fraction": 1.0}}, ("echo", "guide")),
        ({"model": {"hint_weight": 0.0, "guided_fraction": 1.0}}, ("guide",)),
        ({"model": {"hint_weight": 0.0, "guided_fraction": 0.0}}, ("answers",)),
        ({"model": {"learning_rate": 0.003}}, ("echo",)),  # neither was an option yet, and hints had the weight 1
        ({"model": {}}, ("echo",)),
        ({}, ("echo",)),
        ({"model": {"supervision": {}, "guided_fraction": 1.0}}, ("echo",)),  # a group is all that there is
    ],
)
def test_records_from_before_the_groups(hyper_parameters, kinds):
    assert supervision("add", hyper_parameters) == kinds
    assert (guided_fraction(hyper_parameters) > 0) == ("guide" in kinds)


@pytest.mark.parametrize(
    ("told", "kinds"),
    [
        ((), ("hints",)),
        (("carry",), ("hints",)),
        (("state", "carry", "echo"), ("echo", "state")),
    ],
)
def test_hints_of_a_task_from_another_package(told, kinds):
    class Lookup(Search):
        name = "lookup"
        hint_kinds = told

    assert supervision(Lookup(), training()) == kinds
    assert supervision(Lookup(), training(guided_fraction=1)) == (*kinds, "guide")
    assert supervision(Lookup(), training(hint_weight=0)) == ("answers",)


def test_of_a_task_that_is_not_installed_its_hints_are_unknown():
    assert supervision("median", training()) == ()
    assert supervision("median", training(guided_fraction=1)) == ("guide",)
    assert supervision("median", training(hint_weight=0)) == ("answers",)
    assert supervision("median", training(hint_weight=0, guided_fraction=1)) == ("guide",)


def test_kinds_have_an_order_and_others_are_none():
    assert in_order(["guide", "echo", "guide", "Echo", ""]) == ("echo", "guide")
    assert in_order([]) == ()
    assert in_words(tuple(MEANINGS)) == "answers, echo, state, hints, branches and guide"


def test_every_kind_is_explained():
    for kind, meaning in MEANINGS.items():
        assert f". *{kind.capitalize()}*: {meaning}." in explained((kind,))
