"""From one machine to another, by way of a hub: of the one on loopback, or of a real one.

With a token that may write, of an account for tests, the same tests run against a real Hub, where they make models
called ``lightning-ham-test-...`` and delete them again::

    HF_ENDPOINT=https://huggingface.co HF_TOKEN=hf_... python -m pytest tests/hub/test_round_trip.py
"""

import json
import os
import re
import uuid

import pytest
import torch
from huggingface_hub import HfApi

from lightning_ham.hub import TrainedModel

SET = {"config.json", "model.safetensors", "README.md"}
REAL = {name: os.environ[name] for name in ("HF_ENDPOINT", "HF_TOKEN") if os.environ.get(name)}


class Hub:
    """A hub as its client sees it."""

    def __init__(self, url, token, variables, owner=None):
        self.api = HfApi(url, token)
        self.url = url
        self.token = token
        self.variables = variables
        self.owner = owner or self.api.whoami()["name"]
        self.names = []

    def new_name(self):
        self.names.append(f"{self.owner}/lightning-ham-test-{uuid.uuid4().hex[:12]}")
        return self.names[-1]

    def commits(self, name):
        """The titles of the commits of the main branch, the newest first, without the one that made the model."""
        return [commit.title for commit in self.api.list_repo_commits(name)][:-1]

    def versions(self, name):
        return {tag.name: tag.target_commit for tag in self.api.list_repo_refs(name).tags}

    def files(self, name, revision=None):
        info = self.api.model_info(name, revision=revision)
        return {file.rfilename for file in info.siblings} - {".gitattributes"}


@pytest.fixture
def any_hub(request):
    if len(REAL) == 2:
        hub = Hub(REAL["HF_ENDPOINT"], REAL["HF_TOKEN"], {"HF_ENDPOINT": REAL["HF_ENDPOINT"]})
        yield hub
        for name in hub.names:
            hub.api.delete_repo(name, missing_ok=True)
    else:
        server = request.getfixturevalue("hub")
        yield Hub(server.url, "hf_ada", server.variables, "ada")


@pytest.fixture
def here(make_machine, any_hub):
    return make_machine(any_hub.token, any_hub.variables)


@pytest.fixture
def make_elsewhere(make_machine, any_hub):
    """Makes another machine, with a token or without."""
    return lambda token=None: make_machine(token, any_hub.variables)


@pytest.fixture
def name(any_hub):
    return any_hub.new_name()


def change(model, folder):
    with torch.no_grad():
        model.controller.head.bias += 1
    model.save_pretrained(folder)
    return model.weights_sha256()


def test_versions_are_counted_and_can_be_pulled(any_hub, here, make_elsewhere, name, folder, model):
    first = model.weights_sha256()
    assert here.push(folder, name, commit_message="One")["address"] == f"{any_hub.url}/{name}"
    assert any_hub.files(name) == SET
    assert "Nothing has changed" in here.push(folder, name, commit_message="One again")["log"]
    assert any_hub.commits(name) == ["One"]
    assert any_hub.versions(name).keys() == {"v1"}
    second = change(model, folder)
    here.push(folder, name, commit_message="Two")
    assert any_hub.commits(name) == ["Two", "One"]
    assert any_hub.versions(name).keys() == {"v1", "v2"}
    elsewhere = make_elsewhere()
    assert elsewhere.load(name)["weights"] == second
    assert elsewhere.load(name, revision="v1")["weights"] == first
    assert elsewhere.load(name, revision=any_hub.versions(name)["v2"])["weights"] == second


def test_a_pull_request_changes_nothing_until_it_is_merged(any_hub, here, make_elsewhere, name, folder, model):
    first = model.weights_sha256()
    here.push(folder, name)
    second = change(model, folder)
    proposed = here.push(folder, name, create_pr=True)
    assert proposed["address"] == f"{any_hub.url}/{name}/discussions/1"
    assert len(any_hub.commits(name)) == 1
    assert any_hub.versions(name).keys() == {"v1"}
    elsewhere = make_elsewhere()
    assert elsewhere.load(name)["weights"] == first
    assert elsewhere.load(name, revision="refs/pr/1")["weights"] == second


def test_a_branch_is_made_and_has_no_version(any_hub, here, make_elsewhere, name, folder, model):
    first = model.weights_sha256()
    here.push(folder, name)
    second = change(model, folder)
    assert here.push(folder, name, revision="wider")["address"] == f"{any_hub.url}/{name}/tree/wider"
    assert any_hub.versions(name).keys() == {"v1"}
    elsewhere = make_elsewhere()
    assert elsewhere.load(name)["weights"] == first
    assert elsewhere.load(name, revision="wider")["weights"] == second


def test_a_private_model_is_seen_by_its_owner_only(any_hub, here, make_elsewhere, name, folder, model):
    here.push(folder, name, private=True)
    assert make_elsewhere(any_hub.token).load(name)["weights"] == model.weights_sha256()
    assert make_elsewhere().load(name, token=any_hub.token)["weights"] == model.weights_sha256()
    assert make_elsewhere().load(name)["error"] == "FileNotFoundError"


def test_fit_pushes_at_the_end_and_another_machine_gives_the_same_answers(
    any_hub, here, make_elsewhere, tiny_recipe, name
):
    trained = here.command("fit", tiny_recipe, "--hub.repo_id", name, "--hub.private", "true")
    assert trained.returncode == 0, trained.stderr
    assert f"version v1: {any_hub.url}/{name}" in trained.stderr
    assert any_hub.api.model_info(name).private
    model = TrainedModel.from_folder(here.folder / "runs" / "tiny" / "model")
    instances = [([(1, 2), (3, 4), (5, 6)], 3), ([(0, 9)], 0)]
    code = f"""
import json
from lightning_ham import from_pretrained
model = from_pretrained({name!r})
print(json.dumps([model.weights_sha256(), model.solve({instances!r}), model.trace({instances[0]!r})]))
"""
    elsewhere = make_elsewhere(any_hub.token)
    weights, answers, trace = json.loads(elsewhere.python(code).stdout)
    assert weights == model.weights_sha256()
    assert answers == model.solve(instances)
    assert trace == json.loads(json.dumps(model.trace(instances[0])))
    listed = elsewhere.command("models").stdout
    assert re.search(rf"^{name} +search .* cache$", listed, re.MULTILINE), listed
    assert "Nothing has changed" in here.command("push", "runs/tiny", name).stderr
    assert len(any_hub.commits(name)) == 1
