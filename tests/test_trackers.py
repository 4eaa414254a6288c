"""Loggers of a recipe, beside W&B or instead of it: what they get, read back from what they wrote."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning.loggers import MLFlowLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.trackers import EpisodeTable
from lightning_ham.tasks import get_task
from lightning_ham.training import HAMModule

LOGGERS = """
- class_path: TensorBoardLogger
  init_args: {save_dir: '{run_dir}', name: tensorboard, version: ''}
- class_path: CSVLogger
  init_args: {save_dir: '{run_dir}', name: csv, version: ''}
"""


def with_loggers(recipe: Path, loggers: object, folder: Path) -> Path:
    content = yaml.safe_load(recipe.read_text())
    content["trainer"]["logger"] = loggers
    (folder / "tracked.yaml").write_text(yaml.safe_dump(content))
    return folder / "tracked.yaml"


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), {"tensors": 0, "images": 0, "scalars": 0}).Reload()


def test_tensorboard_and_csv_get_all_that_is_logged(fit, tiny_recipe, tmp_path):
    recipe = with_loggers(tiny_recipe, yaml.safe_load(LOGGERS), tmp_path)
    done = fit(tmp_path, recipe)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tracked"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "tracked.yaml"]
    assert "'{run_dir}'" in (run / "recipe.yaml").read_text(), "a copy of the recipe logs to its own run folder"

    ours, theirs = (
        list(csv.DictReader(path.open())) for path in (run / "metrics/version_0/metrics.csv", run / "csv/metrics.csv")
    )
    assert ours == theirs
    logged = events(run / "tensorboard")
    steps = [(event.step, pytest.approx(event.value)) for event in logged.Scalars("train/nll")]
    assert steps == [(int(row["step"]), float(row["train/nll"])) for row in ours if row["train/nll"]]

    (table,) = (event.tensor_proto.string_val[0].decode() for event in logged.Tensors("episodes/text_summary"))
    head, rule, *rows = table.splitlines()
    assert head == "| epoch | length | input | expected | got | right |"
    assert len(rows) == 16
    assert rule.count("---") == 6
    (image,) = logged.Images("attention")
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert image.width > 400


def test_a_resumed_run_goes_on_in_the_same_folder_of_events(fit, tiny_recipe, tmp_path):
    recipe = with_loggers(tiny_recipe, yaml.safe_load(LOGGERS)[:1], tmp_path)
    assert fit(tmp_path, recipe, "--trainer.max_epochs=2").returncode == 0
    done = fit(tmp_path, recipe, "--ckpt_path=last", "--trainer.max_epochs=4")
    assert done.returncode == 0, done.stderr
    logged = events(tmp_path / "runs" / "tracked" / "tensorboard").Scalars("train/nll")
    assert [event.step for event in logged] == [3, 7, 11, 15]


TRACKIO = """
import atexit, json
calls = []
def init(**options):
    calls.append(["init", options])
    return "a run"
def log(values, step=None):
    calls.append(["log", {key: str(value) for key, value in values.items()}, step])
def finish(): calls.append(["finish"])
class Table:
    def __init__(self, columns, data): self.text = f"table of {columns} with {len(data)} rows"
    def __str__(self): return self.text
class Image:
    def __init__(self, value): self.text = f"image of {value.width > 400}"
    def __str__(self): return self.text
atexit.register(lambda: json.dump(calls, open("calls.json", "w")))
"""


def test_trackio_gets_metrics_tables_and_pictures(fit, tiny_recipe, tmp_path):
    """With a module of Trackio's interface, which writes down what is asked of it."""
    (tmp_path / "trackio.py").write_text(TRACKIO)  # found there, as this is where the training starts
    logger = {
        "class_path": "lightning_ham.runs.trackio_logger.TrackioLogger",
        "init_args": {"project": "trees", "name": "{run_dir}"},
    }
    done = fit(tmp_path, with_loggers(tiny_recipe, logger, tmp_path), "--trainer.max_epochs=2")
    assert done.returncode == 0, done.stderr
    first, *logged, last = json.loads((tmp_path / "calls.json").read_text())
    assert (first[0], last) == ("init", ["finish"])
    options = first[1]
    assert (options["project"], options["name"], options["resume"]) == ("trees", "runs/tracked", "allow")
    assert options["config"]["task"] == "search"
    assert [step for _, values, step in logged if "train/nll" in values] == [3, 7]
    (table,) = (values["episodes"] for _, values, _ in logged if "episodes" in values)
    assert table == "table of ['epoch', 'length', 'input', 'expected', 'got', 'right'] with 16 rows"
    assert [values["attention"] for _, values, _ in logged if "attention" in values] == ["image of True"]


def test_mlflow_gets_a_table_and_a_picture():
    class Client:
        def log_table(self, run_id, data, artifact_file):
            got.append((run_id, list(data), len(data["right"]), artifact_file))

        def log_image(self, run_id, image, artifact_file):
            got.append((run_id, isinstance(image, Image.Image), artifact_file))

    class Logger(MLFlowLogger):
        experiment, run_id = Client(), "7"

        def __init__(self):
            pass

    class Trainer:
        loggers = (Logger(),)
        current_epoch = 0
        global_step = 40
        is_global_zero = True

    got: list[tuple[object, ...]] = []
    batch = get_task("reverse").sample(8, (2, 4), generator=torch.Generator().manual_seed(0))
    EpisodeTable(episodes=6).on_validation_batch_end(Trainer, HAMModule("reverse"), None, batch, 0)
    columns = ["epoch", "length", "input", "expected", "got", "right"]
    assert got == [("7", columns, 6, "episodes.json"), ("7", True, "attention-40.png")]


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        (True, "Expected key 'trainer.logger' to be a logger by its `class_path` and `init_args`, .* but got true"),
        (
            {"class_path": "WandbLogger"},
            "Expected key 'trainer.logger' to be another than WandbLogger: .* keys of 'wandb'",
        ),
        (
            {"class_path": "TensorBordLogger"},
            "'trainer.logger' to name a class that there is, but got 'TensorBordLogger'",
        ),
        ({"class_path": "TensorBoardLogger"}, "Expected key 'trainer.logger' to have the arguments that .*save_dir"),
        (
            {"class_path": "lightning_ham.runs.trackio_logger.TrackioLogger", "init_args": {"projekt": "trees"}},
            "Expected key 'trainer.logger' to have the arguments that TrackioLogger takes",
        ),
        ({"class_path": "EarlyStopping"}, "Expected key 'trainer.logger'"),
    ],
)
def test_a_wrong_logger_is_refused_before_the_run(logger, message, tiny_recipe, tmp_path):
    path = with_loggers(tiny_recipe, logger, tmp_path)
    with pytest.raises(ValueError, match=message):
        RecipeCLI(path, []).make_trainer(tmp_path, [], [], [])


def test_a_tracker_that_is_not_installed_is_told_in_one_line(fit, tiny_recipe, tmp_path):
    logger = {"class_path": "lightning_ham.runs.trackio_logger.TrackioLogger"}
    done = fit(tmp_path, with_loggers(tiny_recipe, logger, tmp_path))
    assert (done.returncode, done.stderr) == (2, "error: No module named 'trackio'\n")
    assert not (tmp_path / "runs").exists()
