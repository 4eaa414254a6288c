"""Models to the Hub: by the real client, to a hub on loopback, which is also told to fail."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from lightning_ham.evaluation import evaluate
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.files import EVAL_RESULTS, PICTURES
from lightning_ham.hub.folder import write_weights
from lightning_ham.runs import publish
from lightning_ham.runs.folder import Claim
from lightning_ham.runs.recipe.options import EvaluationOptions

SECONDS = 12.0
"""Limit for reporting a failure, even on a busy machine; huggingface_hub itself would try for 23."""
SET = {"config.json", "model.safetensors", "README.md"}


@pytest.fixture
def push(machine, folder):
    """Pushes the model in ``folder`` from Python; returns the address or the error, the seconds, and the log."""

    def push(*arguments, **options):
        return machine.push(folder, *arguments, **options)

    return push


def change(model, folder):
    with torch.no_grad():
        model.controller.head.bias += 1
    model.save_pretrained(folder)


def added(hub, name):
    """The commits that came after the one that made the model."""
    return hub.commits(name)[1:]


# What is pushed.


def test_a_push_is_one_commit_of_the_set_with_a_version_and_an_address(hub, push, name, folder, model):
    (folder / "notes.txt").write_text("mine")
    pushed = push(name, commit_message="The first one")
    assert pushed["address"] == f"{hub.url}/{name}"
    (commit,) = added(hub, name)
    assert commit["message"] == "The first one"
    assert hub.files(name).keys() == SET | {".gitattributes"}
    assert hub.load(name)["tags"] == {"v1": commit["oid"]}
    assert (
        f"Pushed config.json, model.safetensors, README.md in commit {commit['oid'][:7]}, version v1: {hub.url}/{name}"
        in pushed["log"]
    )
    files = hub.files(name)
    assert (
        files["model.safetensors"] == (folder / "model.safetensors").read_bytes() == write_weights(model.state_dict())
    )
    assert f'from_pretrained("{name}")' in files["README.md"].decode()


def test_a_push_of_the_same_makes_no_commit(hub, push, name):
    push(name)
    again = push(name)
    assert again["address"] == f"{hub.url}/{name}"
    assert len(added(hub, name)) == 1
    assert hub.load(name)["tags"].keys() == {"v1"}
    assert "Nothing has changed since commit " in again["log"]
    assert "version v1" in again["log"]


def test_a_version_that_an_earlier_push_did_not_come_to_is_made_up_for(hub, push, name):
    hub.fails("/tag/", "status", 500)
    failed = push(name)
    assert failed["error"] == "ConnectionError"
    assert f"Expected to tag what was pushed to {name}, but" in failed["message"]
    hub.faults.clear()
    push(name)
    assert len(added(hub, name)) == 1
    assert hub.load(name)["tags"] == {"v1": added(hub, name)[0]["oid"]}


def test_what_others_put_beside_a_model_stays(hub, push, name, folder, model):
    push(name)
    hub.write(name, hub.files(name) | {"notes.txt": b"theirs"})
    change(model, folder)
    push(name)
    assert hub.files(name)["notes.txt"] == b"theirs"


def test_a_pull_request_is_for_a_model_that_is_there(push, name):
    failed = push(name, create_pr=True)
    assert failed["error"] == "FileNotFoundError"
    assert f"Expected to push to {name}, but" in failed["message"]


# Faults.

FAULTS = {
    "slow": ("/create", "slow", 6, {}, "ConnectionError", "did not answer in time"),
    "429": ("/create", "status", 429, {"headers": {"Retry-After": "3600"}}, "ConnectionError", "again in 3600 s."),
    "500": ("/create", "status", 500, {}, "ConnectionError", "answered 500"),
    "500 of a check": ("/preupload/", "status", 500, {}, "ConnectionError", "answered 500"),
    "429 of an upload": ("/lfs/", "status", 429, {"method": "PUT"}, "ConnectionError", "answered 429"),
    "503 of an upload": ("/lfs/", "status", 503, {"method": "PUT"}, "ConnectionError", "answered 503"),
    "403 of an upload": ("/lfs/", "status", 403, {"method": "PUT"}, "PermissionError", "answered 403"),
    "cut upload": ("/lfs/", "cut", 0, {"method": "PUT"}, "ConnectionError", "cannot be reached ("),
    "slow upload": ("/lfs/", "slow", 6, {"method": "PUT"}, "ConnectionError", "or nothing came in time"),
    "cut commit": ("/commit/", "cut", 0, {}, "ConnectionError", "cannot be reached ("),
    "500 of a commit": ("/commit/", "status", 500, {}, "ConnectionError", "answered 500"),
    "409 of a commit": ("/commit/", "status", 409, {}, "ConnectionError", "answered 409 (told to fail)"),
    "a web page": ("/create", "page", 0, {}, "ConnectionError", "does not answer as a Hub does"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_told_within_seconds_and_the_push_can_be_made_again(hub, push, name, case):
    path, kind, value, options, error, message = FAULTS[case]
    hub.fails(path, kind, value, **options)
    failed = push(name)
    assert failed.get("error") == error, failed
    assert message in failed["message"]
    assert failed["message"].startswith(f"Expected to push to {name}, but ")
    assert "\n" not in failed["message"]
    assert failed["seconds"] < SECONDS
    assert not (hub.root / name).exists() or added(hub, name) == []
    hub.faults.clear()
    push(name)
    assert len(added(hub, name)) == 1
    assert hub.load(name)["tags"].keys() == {"v1"}


@pytest.mark.parametrize(
    ("token", "error", "message"),
    [
        ("", "PermissionError", "with, but there is none: log in with `hf auth login`, or give the argument `token`"),
        ("hf_old", "PermissionError", "answered 401 (Invalid credentials in Authorization header). The token is not"),
        ("hf_reader", "PermissionError", "answered 403 (You don't have the rights to create a model under ada). Use a"),
    ],
)
def test_without_a_token_that_permits_it_nothing_is_pushed(hub, push, name, token, error, message):
    failed = push(name, environment={"HF_TOKEN": token})
    assert failed["error"] == error
    assert message in failed["message"]
    assert not (hub.root / name).exists()
    assert token != "" or hub.requests == []


def test_a_model_of_others_is_not_pushed_to(hub, push, folder):
    hub.write("lightning-ham/theirs", {path.name: path.read_bytes() for path in folder.iterdir()})
    failed = push("lightning-ham/theirs")
    assert failed["error"] == "PermissionError"
    assert len(hub.commits("lightning-ham/theirs")) == 1


@pytest.mark.parametrize("target", ["ham-sort", "a/b/c", "ada/..", "ada/-x", "ada/a--b", "", "ada/"])
def test_what_is_no_name_is_refused_at_once(hub, push, target):
    failed = push(target)
    assert failed["error"] == "HFValidationError" if target.count("/") == 1 else "ValueError"
    assert hub.requests == []


def test_offline_nothing_is_pushed(hub, push, name):
    failed = push(name, environment={"HF_HUB_OFFLINE": "1"})
    assert failed["error"] == "ConnectionError"
    assert "HF_HUB_OFFLINE is set" in failed["message"]
    assert hub.requests == []


@pytest.mark.parametrize("fault", [None, ("/create", "status", 500), ("/commit/", "cut"), ("/tag/", "page")])
def test_a_password_in_the_address_of_the_hub_is_never_shown(hub, push, name, fault):
    if fault:
        hub.fails(*fault)
    pushed = push(name, endpoint=hub.url.replace("://", "://ada:secret@"), token=None)
    assert "secret" not in str(pushed)
    assert hub.url in str(pushed)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/commit/", {"commitOid": "\x1b[31m" * 99, "commitUrl": "\x1b[31m" * 99}),
        ("/commit/", {"commitOid": 3, "commitUrl": 3}),
        ("/commit/", []),
        ("/create", {"url": 3}),
        ("/preupload/", {"files": 3}),
        ("/refs", {"branches": [], "tags": [{"name": "v" + "9" * 99_999, "ref": "x", "targetCommit": "\x1b"}]}),
        ("/validate-yaml", {"errors": [], "warnings": [{"message": "\x1b[31m" * 9_999}]}),
    ],
    ids=range(7),
)
def test_what_a_server_answers_is_shown_on_short_lines_without_what_steers_a_terminal(hub, push, name, path, body):
    hub.fails(path, "json", body=body)
    pushed = push(name)
    assert path != "/validate-yaml" or "Warnings while validating metadata" in pushed["log"]
    assert pushed.get("message", "").isprintable()
    assert len(pushed.get("message", "")) < 900
    assert all(line.isprintable() and len(line) < 900 for line in pushed["log"].splitlines())


# The command.


@pytest.fixture
def run_folder(model, tmp_path):
    """A run folder as ``fit`` leaves it, evaluated on little."""
    run = tmp_path / "runs" / "tiny"
    run.mkdir(parents=True)
    evaluation = evaluate(model, [(1, 4)], episodes=20, seed=5) | {"weights_sha256": model.weights_sha256()}
    training = {"recipe": "tiny", "command": "fit tiny", "seed": 5, "updates": 1, "episodes": 1, "seconds": 7.0}
    training |= {"machine": "a laptop", "hyper_parameters": {}, "versions": {"python": "3.11"}, "commit": None}
    training |= {"wandb_url": None, "curve": []}
    model.save_pretrained(run / "model", evaluation, training)
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    (run / "training.json").write_text(json.dumps(training))
    options = {"lengths": [[1, 3]], "episodes": 10, "seed": 2}
    (run / "recipe.yaml").write_text(json.dumps({"evaluation": options}))
    return run


def test_a_run_is_pushed_with_its_evaluation_and_training_and_then_not_again(hub, machine, run_folder, name):
    pushed = machine.command("push", run_folder, name, "--message", "Mine")
    assert (pushed.returncode, pushed.stdout) == (0, f"{hub.url}/{name}\n")
    assert "Evaluating" not in pushed.stderr
    (commit,) = added(hub, name)
    assert commit["message"] == "Mine"
    card = hub.files(name)["README.md"].decode()
    assert f'from_pretrained("{name}")' in card
    assert "lengths 1-4" in card
    assert "fit tiny" in card
    again = machine.command("push", run_folder / "model", name)
    assert again.returncode == 0
    assert len(added(hub, name)) == 1


@pytest.mark.parametrize("there", [False, True])
def test_a_run_without_an_evaluation_of_these_weights_is_evaluated_first(hub, machine, run_folder, name, there):
    file = run_folder / "evaluation.json"
    if there:
        other = json.loads(file.read_text()) | {"weights_sha256": "0" * 64}
        file.write_text(json.dumps(other))
    else:
        file.unlink()
    assert "Evaluating the model first, on lengths 1-3" in machine.command("push", run_folder, name).stderr
    measured = json.loads(file.read_text())
    assert [result["lengths"] for result in measured["results"]] == [[1, 3]]
    assert (measured["seed"], measured["results"][0]["episodes"]) == (2, 10)
    assert "lengths 1-3" in hub.files(name)["README.md"].decode()
    assert "Nothing has changed" in machine.command("push", run_folder, name).stderr


@pytest.mark.parametrize("why", ["it has not ended", "it is going on", "the write breaks off"])
def test_a_push_does_not_say_of_a_run_that_it_has_ended(model, run_folder, monkeypatch, why):
    """An evaluation in the run folder means that the run has ended; a push must not write one before that."""
    file = run_folder / "evaluation.json"
    measured = json.loads(file.read_text())
    file.unlink()
    monkeypatch.setattr(publish, "evaluate", lambda *_: dict(measured))
    with contextlib.ExitStack() as stack:
        if why == "it has not ended":
            (run_folder / "training.json").write_text(json.dumps({"recipe": "tiny", "command": "fit tiny"}))
        elif why == "it is going on":
            stack.enter_context(Claim(run_folder))
        else:
            monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            stack.enter_context(pytest.raises(KeyboardInterrupt))
        assert publish._evaluation(model, run_folder)["results"] == measured["results"]
    assert not [path.name for path in run_folder.iterdir() if path.name.startswith("evaluation")]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]"])
@pytest.mark.parametrize("damaged", ["evaluation.json", "training.json", "recipe.yaml"])
def test_damaged_files_of_a_run_cost_what_they_tell(hub, machine, run_folder, name, damaged, content):
    (run_folder / damaged).write_bytes(content)
    if damaged == "recipe.yaml":  # it is read only where there is no evaluation; the paper's protocol is a long one
        assert publish._options(run_folder) == EvaluationOptions()
        return
    pushed = machine.command("push", run_folder, name)
    assert pushed.returncode == 0
    assert f"{run_folder / damaged} is damaged" in pushed.stderr
    card = hub.files(name)["README.md"].decode()
    assert ("lengths 1-3" if damaged == "evaluation.json" else "lengths 1-4") in card
    assert ("How this model was trained was not recorded" in card) == (damaged == "training.json")


def test_the_cards_pictures_go_with_it_and_go_when_they_are_gone(hub, machine, run_folder, name):
    for number, picture in enumerate(PICTURES):
        (run_folder / "model" / picture).write_bytes(b"\x89PNG" + bytes([number]))
    machine.command("push", run_folder, name)
    assert hub.files(name).keys() == SET | set(PICTURES) | {EVAL_RESULTS, ".gitattributes"}
    (run_folder / "model" / PICTURES[0]).unlink()
    machine.command("push", run_folder, name)
    assert hub.files(name).keys() == SET | {PICTURES[1], EVAL_RESULTS, ".gitattributes"}
    assert [len(commit["tree"]) for commit in added(hub, name)] == [7, 6]


@pytest.mark.parametrize(("kind", "value"), [("cut", 0), ("status", 503)])
def test_faults_while_several_files_are_uploaded_at_once_are_told_too(hub, machine, run_folder, name, kind, value):
    for number, picture in enumerate(PICTURES):
        (run_folder / "model" / picture).write_bytes(b"\x89PNG" + bytes([number]))
    hub.fails("/lfs/", kind, value, method="PUT")
    failed = machine.command("push", run_folder, name)
    assert [method for method, _ in hub.requests].count("PUT") <= 3  # each file once
    assert failed.returncode == 2
    assert failed.stderr.startswith(f"error: Expected to push to {name}, but {hub.url} ")
    assert failed.stderr.count("\n") == 1
    assert added(hub, name) == []


def test_a_saved_model_of_no_run_is_evaluated_and_left_as_it_is(hub, machine, name, tmp_path):
    TrainedModel("add", controller_options={"controller_size": 4, "leaf_size": 4}).save_pretrained(tmp_path / "mine")
    before = sorted(path.name for path in (tmp_path / "mine").iterdir())
    code = f"""
from lightning_ham.runs import publish
from lightning_ham.runs.recipe.options import EvaluationOptions
publish.EvaluationOptions = lambda: EvaluationOptions([(4, 6)], 8, 0)
publish.push_run(__import__("pathlib").Path({str(tmp_path / "mine")!r}), {name!r})
"""
    finished = machine.python(code)
    assert finished.returncode == 0, finished.stderr
    assert "lengths 4-6" in hub.files(name)["README.md"].decode()
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "error: the following arguments are required: ORGANISATION/NAME"),
        (
            ["RUN", "mine"],
            "error: Expected organisation/name on the Hub, or your user name and a name, but got 'mine'.",
        ),
        (["nowhere", "ada/x"], "error: Expected a run folder to push, but there is no nowhere."),
        (["RUN", "ada/x", "--privat"], "error: Unknown argument '--privat'; did you mean --private?"),
        (
            ["RUN", "ada/x", "--endpoint", "http://127.0.0.1:9"],
            "error: Expected to push to ada/x, but http://127.0.0.1:9",
        ),
    ],
)
def test_wrong_input_is_one_line_and_status_2(machine, run_folder, arguments, message):
    words = [str(run_folder) if word == "RUN" else word for word in arguments]
    failed = machine.command("push", *words)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert message in failed.stderr.splitlines()[-1]


# At the end of a training.


@pytest.mark.parametrize("why", ["no token", "down"])
def test_a_run_whose_push_fails_is_kept_and_the_command_to_push_it_is_told(hub, machine, tiny_recipe, name, why):
    variables = {"HF_TOKEN": ""} if why == "no token" else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    options = ["--trainer.max_epochs", "1", "--hub.repo_id", name]
    trained = machine.command("fit", tiny_recipe, *options, **variables)
    assert trained.returncode == 0
    assert "The model is trained and saved, but not pushed: Expected " in trained.stderr
    command = f"-m lightning_ham.push runs/tiny {name}"
    assert trained.stderr.splitlines()[-1].endswith(command)
    assert (why == "no token") == ("There is time until the training ends." in trained.stderr)
    pushed = machine.command("push", "runs/tiny", name)
    assert pushed.returncode == 0
    assert "Evaluating" not in pushed.stderr
    assert len(added(hub, name)) == 1


def test_interrupted_in_the_middle_of_the_push_the_run_is_kept(hub, machine, tiny_recipe, name):
    hub.fails("/create", "slow", 20)
    options = ["--trainer.max_epochs", "1", "--hub.repo_id", name]
    process = machine.start_command("fit", tiny_recipe, *options, HF_HUB_ETAG_TIMEOUT="20")
    deadline = time.monotonic() + 300
    while ("POST", "/api/repos/create") not in hub.requests and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process, signal.SIGINT)
    trained = machine.wait(process)
    assert trained.returncode == 130
    told = "The model is trained and saved, but not pushed: interrupted. Push it later with: "
    assert told in trained.stderr.splitlines()[-1]
    hub.faults.clear()
    assert machine.command("push", "runs/tiny", name).returncode == 0


def test_a_recipe_with_what_is_no_name_is_refused_before_training(machine, tiny_recipe):
    failed = machine.command("fit", tiny_recipe, "--hub.repo_id", "mine")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: Key 'hub.repo_id': Expected organisation/name on the Hub")
    assert not (machine.folder / "runs").exists()
