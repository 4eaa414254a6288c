"""The page's JavaScript and Python answer alike, bit by bit."""

import json
import math

import pytest
import torch

from lightning_ham.hub import TrainedModel
from lightning_ham.page.site import default_models, site_files

NAMES = [name for name, _ in default_models()]
LENGTHS = [(1, 32)] * 85 + [(33, 128)] * 15


def sampled(task, lengths, seed=0):
    """An instance of a task for each range of lengths."""
    generator = torch.Generator().manual_seed(seed)
    for low, high in lengths:
        episodes = task.sample(1, (low, max(high, task.min_length)), generator=generator)
        yield task.decode_inputs(episodes.inputs[0], episodes.occupied[0])


def solved(reader, name, instances):
    """What the page makes of instances."""
    return reader.page.evaluate(
        "([name, instances]) => instances.map((instance) => lightningHam.solve(name, instance))",
        [name, [json.dumps(instance) for instance in instances]],
    )


def in_json(answer):
    return json.loads(json.dumps(answer))


@pytest.mark.parametrize("name", NAMES)
def test_answers_to_100_instances_are_equal(once, models, name):
    model = dict(models)[name]
    instances = list(sampled(model.task, LENGTHS))
    answers = [json.loads(one["answer"]) for one in solved(once, name, instances)]
    assert answers == in_json(model.solve(instances))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("ham-")])
def test_the_page_marks_as_wrong_what_the_oracle_does(once, models, name):
    task = dict(models)[name].task
    instances = list(sampled(task, [(1, 32)] * 5 + [(60, 64)] * 5))
    found = solved(once, name, instances)
    for instance, one in zip(instances, found, strict=True):
        assert (one["wrong"] == []) == (json.loads(one["answer"]) == in_json(task.oracle(instance)))


def assert_same_descents(reader, model, name, instances):
    for instance, one in zip(instances, solved(reader, name, instances), strict=True):
        trace = model.trace(instance)
        assert one["numLeaves"] == trace["num_leaves"]
        assert [step["leaf"] for step in one["steps"]] == [step["leaf"] for step in trace["steps"]]
        per_output = len(trace["steps"]) // len(one["outputs"])
        assert one["outputs"] == [step["output"] for step in trace["steps"][per_output - 1 :: per_output]]
        for here, there in zip(one["steps"], trace["steps"], strict=True):
            for found, expected in zip(here["right"], there["branch_probabilities"], strict=True):
                assert math.isclose(found, expected, rel_tol=1e-3, abs_tol=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("ham-")])
def test_descents_and_probabilities_are_equal(once, models, name):
    model = dict(models)[name]
    assert_same_descents(once, model, name, list(sampled(model.task, [(1, 16)] * 3 + [(17, 40)], seed=1)))


KINDS = {
    "mlp": ("sort", "lstm_ham", {"join": "mlp", "leaf_size": 8, "readout": "state"}),
    "grid": ("merge", "lstm_ham", {"join": "gated", "leaf_size": 8, "real_inputs": 1, "grid": 0.25}),
    "choice": ("merge", "lstm_ham", {"join": "choice", "leaf_size": 8, "real_inputs": 1, "readout": "read"}),
    "thrice": ("reverse", "lstm_ham", {"leaf_size": 8, "controller_size": 5, "accesses_per_output": 3}),
    "raw": ("queue", "raw_ham", {"join": "mlp", "leaf_size": 8, "grid": 0.5}),
    "deep": ("sort", "lstm", {"controller_size": 8, "num_layers": 2}),
    "attention": ("add", "lstm_attention", {"controller_size": 8, "num_layers": 2}),
}


@pytest.fixture(scope="module")
def all_kinds(browser, site, tmp_path_factory):
    """A page with untrained models of all kinds that the package's models are not, and the models."""
    torch.manual_seed(3)
    models = [(name, TrainedModel(*kind)) for name, kind in KINDS.items()]
    for _, model in models:
        for parameter in model.parameters():
            parameter.data.mul_(2.5)  # so that decisions are not all near 1/2
        if model.accesses_per_output:
            model.controller.memory.engine = "reference"
    page = browser.new_page()
    folder = tmp_path_factory.mktemp("kinds")
    for name, content in site_files(models).items():
        (folder / name).write_bytes(content)
    page.goto((folder / "index.html").as_uri())
    yield type("Page", (), {"page": page}), dict(models)
    page.close()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_answers_alike(all_kinds, name):
    page, models = all_kinds
    instances = list(sampled(models[name].task, [(1, 16)] * 10))
    answers = [json.loads(one["answer"]) for one in solved(page, name, instances)]
    assert answers == in_json(models[name].solve(instances))
    if models[name].accesses_per_output:
        assert_same_descents(page, models[name], name, instances[:3])
