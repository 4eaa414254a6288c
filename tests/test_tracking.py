"""What is logged in W&B, read back from the run that was written; and that nothing is ever asked."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from lightning_ham.runs import tracking
from lightning_ham.runs.trackers import EpisodeTable
from lightning_ham.runs.tracking import resolve_mode
from lightning_ham.tasks import get_task, task_names
from lightning_ham.training import HAMModule

KEY = "0123456789" * 4
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


# Which mode.


@pytest.fixture
def account(monkeypatch, tmp_path) -> Callable[..., None]:
    """Sets what W&B finds: an environment, and a key for a host in a netrc file."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def account(environment: dict[str, str], netrc_host: str | None = None) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.replace("~", str(tmp_path)))
        if netrc_host:
            (tmp_path / Path(environment.get("NETRC", ".netrc")).name).write_text(
                f"machine {netrc_host}\n  login user\n  password {KEY}\n"
            )

    return account


@pytest.mark.parametrize(
    ("asked_for", "environment", "netrc_host", "expected"),
    [
        # What was asked for wins over everything.
        ("online", {}, None, "online"),
        ("online", {"WANDB_MODE": "offline"}, None, "online"),
        ("offline", {"WANDB_API_KEY": KEY, "WANDB_MODE": "online"}, None, "offline"),
        ("disabled", {"WANDB_API_KEY": KEY, "WANDB_MODE": "online"}, None, "disabled"),
        # Then WANDB_MODE.
        ("auto", {"WANDB_MODE": "online"}, None, "online"),
        ("auto", {"WANDB_MODE": "offline", "WANDB_API_KEY": KEY}, None, "offline"),
        ("auto", {"WANDB_MODE": "disabled", "WANDB_API_KEY": KEY}, "api.wandb.ai", "disabled"),
        ("auto", {"WANDB_MODE": "dryrun", "WANDB_API_KEY": KEY}, None, "offline"),
        # Then whether there is a key.
        ("auto", {}, None, "offline"),
        ("auto", {"WANDB_API_KEY": KEY}, None, "online"),
        ("auto", {"WANDB_API_KEY": ""}, None, "offline"),
        ("auto", {}, "api.wandb.ai", "online"),
        ("auto", {}, "example.org", "offline"),
        ("auto", {"WANDB_BASE_URL": "https://wandb.example.org:8080"}, "wandb.example.org", "online"),
        ("auto", {"WANDB_BASE_URL": "https://wandb.example.org"}, "api.wandb.ai", "offline"),
        ("auto", {"NETRC": "~/mine"}, "api.wandb.ai", "online"),
        ("auto", {"NETRC": "~/missing"}, None, "offline"),
    ],
)
def test_mode(account, asked_for, environment, netrc_host, expected):
    account(environment, netrc_host)
    assert resolve_mode(asked_for) == expected


@pytest.mark.parametrize("content", [b"machine\n", b"\xff\xfe\x00"])
def test_a_broken_netrc_is_no_key(account, tmp_path, content):
    account({})
    (tmp_path / ".netrc").write_bytes(content)
    assert resolve_mode("auto") == "offline"


@pytest.mark.parametrize("home", ["~", "/dev/null/home"])
def test_where_there_is_no_home_there_is_no_key(account, monkeypatch, home):
    account({})
    monkeypatch.setenv("HOME", home)
    assert resolve_mode("auto") == "offline"


def test_a_home_that_can_be_written_is_left_to_wandb(account, monkeypatch, tmp_path):
    account({})
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    tracking._keep_files_in(tmp_path / "run")
    assert dict(os.environ) == before


# What is logged.


@pytest.fixture(scope="module")
def run(logging_fit) -> Callable[..., str]:
    """Trains in a folder with no choice of a mode, no key and no terminal; returns what it says on stderr."""

    def train(folder: Path, recipe: Path, *arguments: str, **environment: str) -> str:
        done = logging_fit(folder, recipe, *arguments, without=("WANDB_MODE",), **environment)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return train


def synced(stderr: str, folder: Path) -> list[Path]:
    """The folders that the last line of W&B names."""
    (line,) = re.findall(r"^To see the run in W&B: wandb sync (.*)$", stderr, re.MULTILINE)
    return [folder / path for path in line.split()]


def records(run: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Everything that W&B wrote of a run."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def no_account(environment) -> dict[str, str]:
    """No choice of a mode, no key and no terminal."""
    return {name: value for name, value in environment.items() if name != "WANDB_MODE"}


@pytest.fixture(scope="module")
def logged(tmp_path_factory, tiny_recipe, run) -> tuple[Path, str]:
    """A folder with a logged training, and its output on stderr."""
    folder = tmp_path_factory.mktemp("logged")
    return folder, run(folder, tiny_recipe, "--model.attention", "reinforce")


@pytest.fixture(scope="module")
def written(logged, no_account) -> list[dict[str, Any]]:
    folder, stderr = logged
    (path,) = synced(stderr, folder)
    return records(path, no_account)


@pytest.fixture(scope="module")
def history(written) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in written if record["type"] == "history"]


def values(history: list[dict[str, Any]], name: str) -> list[Any]:
    return [item[name] for item in history if name in item]


@pytest.mark.slow
def test_without_a_key_it_asks_nothing_and_logs_offline(logged):
    folder, stderr = logged
    (path,) = synced(stderr, folder)
    assert path.name.startswith("offline-run-")
    assert list(path.glob("run-*.wandb"))
    assert re.fullmatch(
        r"Training search, \d+ parameters, in runs/tiny\n"
        r"To see the run in W&B: wandb sync runs/tiny/wandb/offline-run-\S+\n"
        r"Trained in \d+ s\. The model is in runs/tiny/model\n"
        r"Next: .+\n",
        stderr,
    )


@pytest.mark.slow
def test_config_is_the_resolved_recipe(logged, written):
    folder, _ = logged
    (started,) = (record["run"] for record in written if record["type"] == "run")
    config = started["config"]["update"]
    config.pop("_wandb")
    assert config == yaml.safe_load((folder / "runs" / "tiny" / "recipe.yaml").read_text())
    assert config["data"]["batch_size"] == 16
    assert started["project"] == "lightning-ham"
    assert started["display_name"] == "tiny"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "train/nll",
        "train/loss",
        "train/policy",
        "train/baseline",
        "train/entropy",
        "train/entropy_bonus",
        "train/gradient_norm",
        "train/sequence_error",
        "train/episodes_per_second",
        "train/episodes",
        "curriculum/capacity",
        "val/score",
        "val/current/sequence_error",
        "val/current/symbol_error",
        "val/current/bit_error",
    ],
)
def test_every_epoch_logs(history, name):
    assert len(values(history, name)) == 3


@pytest.mark.slow
def test_every_step_logs_its_learning_rate(history):
    rates = values(history, "lr-Adam")
    assert len(rates) == 12
    assert rates[0] == pytest.approx(0.03)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.slow
def test_errors_are_logged_by_length(history):
    names = {name for item in history for name in item}
    assert {"val/current/sequence_error/1-2", "val/2-8/sequence_error/5-8", "val/9-16/sequence_error/9-16"} <= names


@pytest.mark.slow
def test_values_are_those_of_the_metrics_file(logged, history):
    folder, _ = logged
    lines = (folder / "runs" / "tiny" / "metrics" / "version_0" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/nll")
    assert values(history, "train/nll") == pytest.approx(
        [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    )


@pytest.mark.slow
def test_a_table_of_decoded_episodes_is_logged(logged, history):
    folder, stderr = logged
    assert values(history, "episodes._type") == ["table-file"]  # of three epochs the first
    (file,) = values(history, "episodes.path")
    (path,) = synced(stderr, folder)
    assert values(history, "attention._type") == ["images/separated"]
    (picture,) = (path / "files" / "media" / "images").glob("attention_*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = json.loads((path / "files" / file).read_text())
    assert table["columns"] == ["epoch", "length", "input", "expected", "got", "right"]
    assert len(table["data"]) == 16
    for epoch, length, given, expected, got, right in table["data"]:
        assert epoch == 0
        pairs, query = eval(given, {"__builtins__": {}})
        assert len(pairs) + 1 == length
        assert next(value for key, value in pairs if key == query) == int(expected)
        assert 0 <= int(got) < 32
        assert right == (got == expected)


@pytest.mark.slow
@pytest.mark.parametrize("home", ["~", "/dev/null/home"])  # as if nobody knew where it is; one that cannot be made
def test_without_a_home_nothing_outside_the_run_folder_is_needed(home, tiny_recipe, no_account, tmp_path):
    """In a process of its own, as some packages look for the home when they are imported."""
    command = [sys.executable, "-m", "lightning_ham.fit", tiny_recipe, "--trainer.max_epochs=1"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=no_account | {"HOME": home},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (path,) = synced(done.stderr, tmp_path)
    assert list(path.glob("files/media/table/episodes*.json"))
    assert (tmp_path / "runs" / "tiny" / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_resumed_training_goes_on_in_the_same_run(logged, tiny_recipe, run, no_account):
    folder, _ = logged
    number = (folder / "runs" / "tiny" / "wandb_run_id").read_text().strip()
    stderr = run(folder, tiny_recipe, "--model.attention=reinforce", "--ckpt_path=last", "--trainer.max_epochs=4")
    first, second = synced(stderr, folder)  # both must be synced, and in this order
    assert first != second
    parts, configs, summaries = [], [], []
    for path in (first, second):
        assert path.is_dir()
        read = records(path, no_account)
        (started,) = (record["run"] for record in read if record["type"] == "run")
        assert (started["run_id"], started["project"], started["display_name"]) == (number, "lightning-ham", "tiny")
        configs.append({key: value for key, value in started["config"]["update"].items() if key != "_wandb"})
        summaries.append({key for record in read if record["type"] == "summary" for key in record["summary"]["update"]})
        parts.append([record["history"]["item"] for record in read if record["type"] == "history"])
    # docs/tracking.md says what goes on, what begins anew, and what is not there again.
    for goes_on in ("trainer/global_step", "epoch", "train/episodes", "train/seconds"):
        before, after = (values(part, goes_on) for part in parts)
        assert max(before) < min(after), goes_on
    assert [values(part, "_step") for part in parts] == [list(range(len(part))) for part in parts]
    assert values(parts[1], "_runtime")[0] < values(parts[0], "_runtime")[-1]
    assert (len(values(parts[0], "episodes.path")), len(values(parts[1], "episodes.path"))) == (1, 0)
    assert [any(key.startswith("episodes") for key in summary) for summary in summaries] == [True, False]
    configs[0]["trainer"]["max_epochs"] = 4
    assert configs[0] == configs[1]
    assert len(values(parts[1], "train/nll")) == 1, "the rows of the first part are in its own file only"


@pytest.mark.slow
def test_where_w_and_b_is_out_of_reach_it_goes_on_offline(tmp_path, tiny_recipe, run, no_account):
    stderr = run(
        tmp_path,
        tiny_recipe,
        "--trainer.max_epochs=1",
        "--wandb.project=elsewhere",
        "--wandb.entity=somebody",
        WANDB_API_KEY=KEY,
        WANDB_BASE_URL=NOWHERE,
        WANDB_INIT_TIMEOUT="2",
    )
    said, warned, *_ = stderr.splitlines()
    assert said.startswith("Training search")
    assert re.fullmatch(r"W&B cannot be used \(.+\); logging offline\.", warned)
    assert stderr.count("W&B cannot be used") == 1
    assert "Traceback" not in stderr
    (path,) = synced(stderr, tmp_path)
    read = records(path, no_account)
    (started,) = (record["run"] for record in read if record["type"] == "run")
    assert (started["project"], started["entity"]) == ("elsewhere", "somebody")
    assert any(record["type"] == "history" for record in read)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"a/b", b"x" * 65])
def test_a_damaged_id_of_a_run_is_made_anew_with_a_warning(tmp_path, caplog, content):
    file = tmp_path / "wandb_run_id"
    file.write_bytes(content)
    made = tracking._run_id(file)
    assert re.fullmatch("[0-9a-f]{8}", made)
    assert [record.message for record in caplog.records] == [
        f"{file} is damaged; the training goes on in a new run of W&B."
    ]
    assert tracking._run_id(file) == made
    assert len(caplog.records) == 1


def test_disabled_it_writes_nothing(fit, tmp_path, tiny_recipe):
    done = fit(tmp_path, tiny_recipe, "--wandb.mode", "disabled", "--trainer.max_epochs", "1", WANDB_MODE="online")
    assert done.returncode == 0
    assert "W&B" not in done.stderr
    assert not list(tmp_path.rglob("*wandb*"))


@pytest.mark.parametrize("task", task_names())
def test_the_table_has_episodes_of_every_task(task):
    class Logger(WandbLogger):
        def __init__(self):
            pass

        def log_table(self, key, columns, data):
            tables.append((key, columns, data))

        def log_image(self, key, images):
            pictures.append((key, len(images)))

    class Trainer:
        loggers = (Logger(),)
        current_epoch = 0
        global_step = 0
        is_global_zero = True

    tables, pictures = [], []
    controller = {"controller": "raw_ham"} if get_task(task).name in ("stack", "queue", "priority_queue") else {}
    batch = get_task(task).sample(8, (4, 8), generator=torch.Generator().manual_seed(0))
    EpisodeTable(episodes=6).on_validation_batch_end(Trainer, HAMModule(task, **controller), None, batch, 0)
    ((key, columns, data),) = tables
    assert key == "episodes"
    assert pictures == [("attention", 1)]
    assert len(data) == 6
    for row, inputs, occupied in zip(data, batch.inputs, batch.occupied, strict=False):
        shown = dict(zip(columns, row, strict=True))
        instance = get_task(task).decode_inputs(inputs, occupied)
        assert (shown["input"], shown["expected"]) == (str(instance), str(get_task(task).oracle(instance)))
        assert shown["right"] == (shown["got"] == shown["expected"])


def test_the_table_is_not_in_the_way_of_other_loggers(tmp_path):
    """A user's own Trainer may have the callback without a W&B logger."""

    class Trainer:
        loggers = (CSVLogger(tmp_path),)
        current_epoch = 0
        is_global_zero = True

    EpisodeTable().on_validation_batch_end(Trainer, None, None, None, 0)
    assert not list(tmp_path.iterdir())
