"""Models from the Hub: by the real client, from a hub on loopback, which is also told to fail."""

import json
import os
import signal
import time

import pytest
import torch

from lightning_ham.hub import TrainedModel
from lightning_ham.hub.folder import write_weights

SECONDS = 12.0
"""Limit for reporting a failure, even on a busy machine; huggingface_hub itself would try for 23."""


@pytest.fixture
def weights(model):
    return model.weights_sha256()


def change_config(hub, name, change):
    """Publish the model again with another configuration."""
    files = hub.files(name)
    config = json.loads(files["config.json"])
    change(config)
    hub.write(name, files | {"config.json": json.dumps(config).encode()})


# What is there.


def test_a_model_is_pulled_by_name_and_then_only_asked_for(hub, machine, published, weights):
    first = machine.load(published)
    assert first["weights"] == weights
    assert f"Loaded {published} from {hub.url}: {published} at commit " in first["log"]
    pulled = len(hub.requests)
    assert machine.load(published)["weights"] == weights
    assert len(hub.requests) == pulled + 1
    cached = {path.name for path in machine.cache.glob("models--*/snapshots/*/*")}
    assert cached == {"config.json", "model.safetensors", "README.md"}


def test_only_files_of_the_set_are_downloaded(hub, machine, published, weights):
    hub.write(published, hub.files(published) | {"evil.py": b"import os", "pytorch_model.bin": b"\x80", "a/b.txt": b""})
    assert machine.load(published)["weights"] == weights
    assert {path.name for path in machine.cache.glob("models--*/snapshots/*/*")} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }


def test_a_newer_commit_is_found_and_an_older_one_stays(hub, machine, published, weights, model, folder):
    first = hub.commits(published)[0]["oid"]
    machine.load(published)
    with torch.no_grad():
        model.controller.head.bias += 1
    model.save_pretrained(folder)
    hub.write(published, {path.name: path.read_bytes() for path in folder.iterdir()})
    assert machine.load(published)["weights"] == model.weights_sha256()
    hub.requests.clear()
    assert machine.load(published, revision=first)["weights"] == weights
    assert hub.requests == []  # what a commit has never changes


def test_a_bare_name_after_a_task_is_looked_up_in_the_default_organisation_and_then_in_the_cache(hub, machine, folder):
    hub.write("lightning-ham/ham-sort-tiny", {path.name: path.read_bytes() for path in folder.iterdir()})
    assert "weights" in machine.load("ham-sort-tiny")
    hub.requests.clear()
    again = machine.load("ham-sort-tiny")
    assert "Loaded ham-sort-tiny from the cache: lightning-ham/ham-sort-tiny at commit" in again["log"]
    assert hub.requests == []


def test_a_revision_of_a_bundled_name_is_one_on_the_hub(hub, machine, folder, weights):
    hub.write("lightning-ham/ham-sort", {path.name: path.read_bytes() for path in folder.iterdir()})
    assert machine.load("ham-sort", revision="main")["weights"] == weights
    assert machine.load("ham-sort")["weights"] != weights


def test_another_cache_and_another_hub_can_be_given(hub, make_machine, published, weights, tmp_path):
    machine = make_machine(HF_ENDPOINT="http://127.0.0.1:9")
    options = {"cache_dir": str(tmp_path / "cache"), "endpoint": f"{hub.url}/"}
    assert machine.load(published, **options)["weights"] == weights
    assert not machine.cache.exists()
    assert list((tmp_path / "cache").glob("models--*"))


def test_two_processes_at_once(machine, published, weights):
    first, second = machine.start_load(published), machine.start_load(published)
    assert machine.loaded(first)["weights"] == machine.loaded(second)["weights"] == weights


# Without a connection.


def test_offline_the_copy_in_the_cache_is_loaded(hub, machine, published, weights):
    machine.load(published)
    hub.requests.clear()
    for offline in (
        machine.load(published, local_files_only=True),
        machine.load(published, environment={"HF_HUB_OFFLINE": "1"}),
    ):
        assert offline["weights"] == weights
        assert f"Loaded {published} from the cache: " in offline["log"]
    assert hub.requests == []


def test_offline_without_a_copy_says_how_to_get_one(hub, machine, published):
    for offline in (
        machine.load(published, local_files_only=True),
        machine.load(published, environment={"HF_HUB_OFFLINE": "1"}),
    ):
        assert offline["error"] == "FileNotFoundError"
        assert f"Expected {published} at main in the cache {machine.cache}" in offline["message"]
        assert offline["message"].count("Load it once with a connection.") == 1
    assert hub.requests == []


@pytest.mark.parametrize("fault", ["down", "slow", "500", "429"])
def test_a_copy_in_the_cache_is_loaded_with_a_warning_when_the_hub_fails(hub, machine, published, weights, fault):
    machine.load(published)
    if fault == "slow":
        hub.fails("/api/models/", "slow", 3)
    elif fault != "down":
        hub.fails("/api/models/", "status", int(fault))
    down = {"HF_ENDPOINT": "http://127.0.0.1:9"} if fault == "down" else {}
    loaded = machine.load(published, environment=down)
    assert loaded["weights"] == weights
    assert "Going on with the copy in the cache." in loaded["log"]
    assert loaded["seconds"] < SECONDS


def test_an_unknown_bare_name_asks_nobody(hub, machine):
    loaded = machine.load("ham-srot")
    assert loaded["error"] == "ValueError"
    assert loaded["message"].startswith("Unknown model 'ham-srot'; did you mean 'ham-sort'?")
    assert hub.requests == []


# Faults.

FAULTS = {
    "slow": ("/api/models/", "slow", 3, {}, "ConnectionError", "did not answer in time"),
    "slow file": ("/resolve/", "slow", 3, {}, "ConnectionError", "or nothing came in time"),
    "401": ("/api/models/", "status", 401, {}, "PermissionError", "answered 401 (told to fail)."),
    "403": ("/api/models/", "status", 403, {}, "PermissionError", "answered 403 (told to fail). Use a token that"),
    "403 of a file": ("model.safetensors", "status", 403, {}, "PermissionError", "answered 403"),
    "404 of a file": (
        "model.safetensors",
        "status",
        404,
        {"headers": {"X-Error-Code": "EntryNotFound"}},
        "FileNotFoundError",
        "no longer has a file of it",
    ),
    "429": (
        "/api/models/",
        "status",
        429,
        {"headers": {"Retry-After": "3600"}},
        "ConnectionError",
        "too many requests. Try again in 3600 s.",
    ),
    "429 of a file": (
        "model.safetensors",
        "status",
        429,
        {"headers": {"Retry-After": "3600"}, "method": "GET"},
        "ConnectionError",
        "too many requests. Try again in 3600 s.",
    ),
    "500": ("/api/models/", "status", 500, {}, "ConnectionError", "answered 500 (told to fail). Try again later."),
    "503 of a file's head": ("/resolve/", "status", 503, {"method": "HEAD"}, "ConnectionError", "answered 503"),
    "503 of a file": ("/resolve/", "status", 503, {"method": "GET"}, "ConnectionError", "answered 503"),
    "cut": ("/api/models/", "cut", 0, {}, "ConnectionError", "cannot be reached ("),
    "cut head": ("/resolve/", "cut", 0, {"method": "HEAD"}, "ConnectionError", "cannot be reached ("),
    "cut file": ("model.safetensors", "cut", 0, {"method": "GET"}, "ConnectionError", "cannot be reached ("),
    "shorter": ("model.safetensors", "shorter", 0, {"method": "GET"}, "ConnectionError", "of another length than it"),
    "wrong hash": ("model.safetensors", "flip", 0, {"method": "GET"}, "ValueError", "the hash of model.safetensors"),
    "wrong hash of a small file": (
        "config.json",
        "flip",
        0,
        {"method": "GET"},
        "ValueError",
        "the hash of config.json",
    ),
    "a name that leaves the cache": (
        "/resolve/",
        "headers",
        0,
        {"headers": {"X-Repo-Commit": "../../../../evil"}},
        "ConnectionError",
        "does not answer as a Hub does (the header X-Repo-Commit is '../../../../evil')",
    ),
    "a hash that leaves the cache": (
        "/resolve/",
        "headers",
        0,
        {"headers": {"ETag": '"../../evil"'}},
        "ConnectionError",
        "the header ETag is",
    ),
    "a web page": ("/api/models/", "page", 0, {}, "ConnectionError", "does not answer as a Hub does"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_told_within_seconds_and_leaves_nothing_half_written(hub, machine, published, weights, case):
    path, kind, value, options, error, message = FAULTS[case]
    hub.fails(path, kind, value, **options)
    loaded = machine.load(published)
    assert loaded.get("error") == error, loaded
    assert message in loaded["message"]
    assert loaded["message"].startswith(f"Expected to fetch {published} from the Hub, but ")
    assert "\n" not in loaded["message"]
    assert loaded["seconds"] < SECONDS
    assert machine.half_written() == []
    hub.faults.clear()
    assert machine.load(published)["weights"] == weights


def test_a_server_that_is_down_is_told_at_once(machine, published):
    loaded = machine.load(published, endpoint="http://127.0.0.1:9")
    assert loaded["error"] == "ConnectionError"
    assert "http://127.0.0.1:9 cannot be reached ([Errno 111] Connection refused)" in loaded["message"]
    assert loaded["seconds"] < SECONDS


def test_a_download_that_is_cut_once_goes_on_where_it_was(hub, machine, published, weights):
    hub.fails("model.safetensors", "cut", method="GET", times=1)
    assert machine.load(published)["weights"] == weights


def test_a_failed_update_leaves_what_was_there(hub, machine, published, weights):
    machine.load(published)
    hub.write(published, hub.files(published) | {"model.safetensors": b"new"})
    hub.fails("model.safetensors", "cut", method="GET")
    loaded = machine.load(published)
    assert loaded["weights"] == weights
    assert "Going on with the copy in the cache." in loaded["log"]
    assert machine.load(published, local_files_only=True)["weights"] == weights


@pytest.mark.parametrize(
    ("arguments", "token", "message"),
    [
        ({}, "hf_ada", "has no model of that name that your token may see. Check both."),
        ({}, None, "has no model of that name that is public. Check the name; if it is private, log in with"),
        ({}, "hf_old", "answered 401 (Invalid credentials in Authorization header). The token is not valid: log in"),
    ],
)
def test_a_model_that_is_not_there(make_machine, arguments, token, message):
    loaded = make_machine(token).load("ada/nothing", **arguments)
    assert loaded["error"] == ("PermissionError" if token == "hf_old" else "FileNotFoundError")
    assert message in loaded["message"]
    if token != "hf_old":
        assert loaded["message"].endswith("There is no folder ada/nothing here either.")


def test_a_revision_that_is_not_there(machine, published):
    loaded = machine.load(published, revision="v7")
    assert loaded["error"] == "FileNotFoundError"
    assert f"Expected to fetch {published} at v7 from the Hub, but" in loaded["message"]
    assert "has no such revision of it" in loaded["message"]


@pytest.mark.parametrize("revision", ["../../x", "/etc/passwd", "", "a/../b", "-x"])
def test_a_revision_that_leaves_the_cache_is_refused(hub, machine, published, revision):
    loaded = machine.load(published, revision=revision or " ")
    assert loaded["error"] == "ValueError"
    assert "Expected a branch, a tag or a commit as `revision`, but got" in loaded["message"]
    assert hub.requests == []


def test_private_models_need_a_token(hub, make_machine, folder, name, weights):
    hub.write(name, {path.name: path.read_bytes() for path in folder.iterdir()}, private=True)
    assert make_machine().load(name)["weights"] == weights
    assert make_machine(None).load(name)["error"] == "FileNotFoundError"
    assert make_machine("hf_reader").load(name)["error"] == "FileNotFoundError"
    assert make_machine(None).load(name, token="hf_ada\n")["weights"] == weights
    assert make_machine().load(name, token=False)["error"] == "FileNotFoundError"


# What is there, and no model that can be trusted.


def test_another_kind_of_model_is_refused_before_it_is_downloaded(hub, machine, name):
    hub.write(name, {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b"\x80\x04."})
    loaded = machine.load(name)
    assert loaded["error"] == "ValueError"
    assert (
        f"Expected a model of lightning_ham, but {name} has no model.safetensors. It has config.json, pytorch_"
        in (loaded["message"])
    )
    assert not machine.cache.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(format_version=2), "a newer lightning_ham"),
        (lambda config: config["controller_options"].update(leaf_size=10**12), "to be at most 16,384"),
        (lambda config: config.update(auto_map={"AutoModel": "evil.Model"}), "Unknown key 'auto_map'"),
        (lambda config: config.update(task="os:system"), "Unknown task 'os:system'"),
    ],
    ids=["newer", "huge", "unknown key", "unknown task"],
)
def test_a_config_that_cannot_be_taken_is_refused_before_the_weights_are_downloaded(
    hub, machine, published, change, message
):
    change_config(hub, published, change)
    loaded = machine.load(published)
    assert loaded["error"] == "ValueError"
    assert message in loaded["message"]
    assert not any("model.safetensors" in path for _, path in hub.requests)


def test_weights_that_are_not_of_the_configuration_are_refused_and_leave_what_was_there(
    hub, machine, published, weights, model
):
    machine.load(published)
    with torch.no_grad():
        model.controller.head.bias += 1
    hub.write(published, hub.files(published) | {"model.safetensors": write_weights(model.state_dict())})
    loaded = machine.load(published)
    assert loaded["error"] == "ValueError"
    assert "one with another hash than config.json tells" in loaded["message"]
    assert machine.load(published, local_files_only=True)["weights"] == weights


ESCAPE = "\x1b[31m"


def check_line(loaded, error):
    assert loaded.get("error") == error, loaded
    assert loaded["message"].isprintable()
    assert len(loaded["message"]) < 900
    assert all(line.isprintable() for line in loaded["log"].splitlines())
    assert len(loaded["log"]) < 3000


def test_names_of_files_are_shown_without_what_steers_a_terminal(hub, machine, name):
    files = {f"{number}{ESCAPE}\u202e{'x' * 200}.bin": b"" for number in range(20)}
    hub.write(name, {"config.json": b"{}", "two\nlines": b""} | files)
    loaded = machine.load(name)
    check_line(loaded, "ValueError")
    assert "has no model.safetensors. It has 0\\x1b[31m\\u202ex" in loaded["message"]


@pytest.mark.parametrize(
    ("path", "kind", "options"),
    [
        ("/resolve/", "headers", {"headers": {"X-Repo-Commit": f"../{'x' * 5000}"}}),
        ("/resolve/", "headers", {"headers": {"ETag": f"../{'x' * 5000}"}}),
        ("/resolve/", "headers", {"headers": {"ETag": f"{ESCAPE}x"}}),
        ("/api/models/", "status", {"value": 500, "body": f"{ESCAPE}{'x' * 5000}"}),
        ("/api/models/", "status", {"value": 429, "headers": {"Retry-After": "9" * 5000}}),
    ],
    ids=["commit", "hash", "escape", "message", "wait"],
)
def test_what_a_server_says_is_shown_on_a_short_line(hub, machine, published, path, kind, options):
    hub.fails(path, kind, **options)
    check_line(machine.load(published), "ConnectionError")


def test_what_a_server_warns_of_is_not_shown(hub, machine, published, weights):
    hub.fails("/api/models/", "headers", headers={"X-HF-Warning": f"topic; {'warned' * 5000}"})
    loaded = machine.load(published)
    assert loaded["weights"] == weights
    assert "warned" not in loaded["log"]


@pytest.mark.parametrize(
    "change",
    [
        {"sha": f"{ESCAPE}x"},
        {"sha": 3},
        {"siblings": 3},
        {"siblings": [3]},
        {"siblings": [{"rfilename": 3}]},
        {"siblings": [{"rfilename": ["x"]}]},
        {"siblings": [{"rfilename": "config.json", "size": "x"}, {"rfilename": "model.safetensors"}]},
        {"siblings": [{"rfilename": "config.json", "blobId": 3}, {"rfilename": "model.safetensors"}]},
        {"siblings": [{"rfilename": "config.json", "lfs": 3}, {"rfilename": "model.safetensors"}]},
        {"siblings": [{"rfilename": ESCAPE * 9999}]},
        3,
        [],
        None,
    ],
    ids=range(13),
)
def test_an_answer_of_another_form_is_told_in_one_line(hub, machine, published, change):
    answer = {"id": published, "sha": hub.commits(published)[0]["oid"], "siblings": [], "tags": []}
    hub.fails("/api/models/", "json", body=answer | change if isinstance(change, dict) else change)
    loaded = machine.load(published)
    check_line(loaded, "ValueError" if "Expected a model of lightning_ham" in str(loaded) else "ConnectionError")
    assert "Expected " in loaded["message"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (None, ""),
        (("/api/models/", "status", 500), "answered 500"),
        (("/api/models/", "page"), "does not answer as a Hub does"),
        (("/resolve/", "cut"), "cannot be reached"),
        (("model.safetensors", "flip"), "is not the one that http://127.0.0.1"),
        ("http://ada:secret@127.0.0.1:9", "http://127.0.0.1:9 cannot be reached"),
        ("http://ada:se/cret@127.0.0.1:9", "is not the address of a server"),
        ("http://ada:secret@127.0.0.1:port", "is not the address of a server"),
        ("ada:secret@127.0.0.1", "is not the address of a server"),
        ("ftp://ada:secret@127.0.0.1", "is not the address of a server"),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("way", ["argument", "variable"])
def test_a_password_in_the_address_of_the_hub_is_never_shown(hub, machine, published, fault, message, way):
    address = hub.url.replace("://", "://ada:secret@")
    if isinstance(fault, str):
        address = fault
    elif fault:
        hub.fails(*fault, method="GET")
    code = f"""
import logging, os, traceback
logging.basicConfig(format="%(message)s")
logging.getLogger("lightning_ham").setLevel("INFO")
from lightning_ham import from_pretrained
try:
    from_pretrained({published!r}, **({{"endpoint": {address!r}}} if {way == "argument"} else {{}}))
except Exception:
    traceback.print_exc()
"""
    finished = machine.python(code, **({"HF_ENDPOINT": address} if way == "variable" else {}))
    assert "secret" not in finished.stderr
    assert "cret@" not in finished.stderr
    assert (f"from {hub.url}: {published}" if fault is None else message) in finished.stderr


def test_a_revision_of_many_letters_is_no_revision(hub, machine, published):
    loaded = machine.load(published, revision="x" * 100_000)
    check_line(loaded, "ValueError")
    assert hub.requests == []


def test_a_file_of_absurd_size_is_not_downloaded(hub, machine, published):
    hub.write(published, hub.files(published) | {"config.json": b" " * (1 << 21)})
    loaded = machine.load(published)
    assert loaded["error"] == "ValueError"
    assert (
        f"Expected config.json of {published} to have at most 1,048,576 bytes, but got 2,097,152."
        in (loaded["message"])
    )
    assert not any("/resolve/" in path for _, path in hub.requests)


def test_truncated_weights_are_refused(hub, machine, published):
    content = hub.files(published)["model.safetensors"]
    hub.write(published, hub.files(published) | {"model.safetensors": content[:-9]})
    loaded = machine.load(published)
    assert loaded["error"] == "ValueError"
    assert "Expected a whole safetensors file" in loaded["message"]


def blob(machine, name):
    """The file in the cache that holds the weights of a model."""
    (path,) = machine.cache.glob(f"models--{name.replace('/', '--')}/snapshots/*/model.safetensors")
    return path, path.resolve()


def test_a_damaged_copy_is_refused_offline_and_replaced_online(machine, published, weights):
    machine.load(published)
    _, content = blob(machine, published)
    content.write_bytes(content.read_bytes()[:-1] + b"\x00\x01")
    loaded = machine.load(published, local_files_only=True)
    assert loaded["error"] == "ValueError"
    assert "it is damaged" in loaded["message"]
    assert machine.load(published)["weights"] == weights
    assert machine.load(published, local_files_only=True)["weights"] == weights


def test_a_link_out_of_the_cache_is_refused(machine, published, folder, tmp_path):
    machine.load(published)
    path, _ = blob(machine, published)
    path.unlink()
    path.symlink_to(folder / "model.safetensors")
    for loaded in (machine.load(published), machine.load(published, local_files_only=True)):
        assert loaded["error"] == "ValueError"
        assert "Expected a file within the cache" in loaded["message"]


# Disks.


def test_a_full_disk_is_told_and_leaves_nothing_half_written(hub, machine, published, weights):
    code = f"""
import builtins, io
from huggingface_hub import file_download
from lightning_ham import from_pretrained
get = file_download.http_get
def full(url, temp_file, **options):
    temp_file.write(b"some")
    raise OSError(28, "No space left on device")
file_download.http_get = full
try:
    from_pretrained({published!r})
except OSError as error:
    print(type(error).__name__, error)
"""
    finished = machine.python(code)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(
        f"OSError Expected to fetch {published} from the Hub into {machine.cache}, but got: "
    )
    assert "No space left on device. Make room or give rights there, or choose another folder" in finished.stdout
    assert machine.half_written() == []
    assert machine.load(published)["weights"] == weights


@pytest.fixture
def read_only():
    """Makes folders read-only, for whom the system lets them be."""
    changed = []

    def make(folder):
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o555)
                changed.append(path)
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write to every folder")

    yield make
    for path in changed:
        path.chmod(0o755)


def test_a_read_only_cache_is_told(machine, published, read_only):
    machine.cache.mkdir(parents=True)
    read_only(machine.cache)
    loaded = machine.load(published)
    assert loaded["error"] == "PermissionError"
    assert "Make room or give rights there" in loaded["message"]


def test_a_read_only_cache_with_a_copy_is_enough(machine, published, weights, read_only):
    machine.load(published)
    read_only(machine.cache)
    assert machine.load(published)["weights"] == weights


def test_a_cache_that_is_a_file_is_told(machine, published, tmp_path):
    (tmp_path / "file").write_text("")
    loaded = machine.load(published, cache_dir=str(tmp_path / "file"))
    assert loaded["error"] in ("NotADirectoryError", "FileExistsError")
    assert "Expected to fetch" in loaded["message"]


# As a command.


def test_commands_take_names_on_the_hub(machine, published, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("[[3, 4], [1, 2]]\n")
    solved = machine.command("solve", published, tmp_path / "pairs.jsonl")
    assert (solved.returncode, solved.stderr) == (0, "")
    failed = machine.command("solve", "ada/nothing", tmp_path / "pairs.jsonl")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: Expected to fetch ada/nothing from the Hub, but ")
    assert failed.stderr.count("\n") == 1


def test_interrupted_in_the_middle_it_leaves_nothing_half_written(hub, machine, published, weights, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("[[3, 4], [1, 2]]\n")
    hub.fails("model.safetensors", "drip", 0.3, method="GET")
    process = machine.start_command("solve", published, tmp_path / "pairs.jsonl")
    deadline = time.monotonic() + 300
    while not list(machine.cache.rglob("*.incomplete")) and time.monotonic() < deadline:
        time.sleep(0.02)
    if not list(machine.cache.rglob("*.incomplete")):
        pytest.fail("no download began")
    os.kill(process, signal.SIGINT)
    finished = machine.wait(process)
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, "", "")
    assert machine.half_written() == []
    hub.faults.clear()
    assert machine.load(published)["weights"] == weights


def test_subclasses_load_as_themselves(folder):
    class Mine(TrainedModel):
        pass

    assert type(Mine.from_pretrained(folder)) is Mine
    assert type(Mine.from_pretrained("ham-sort")) is Mine
