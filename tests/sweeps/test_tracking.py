"""A sweep with a real training: every run of a trial is one in W&B, in the group of the sweep."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_ham import from_pretrained


@pytest.mark.slow
def test_every_training_is_a_run_in_the_group_of_its_sweep(sweep, tmp_path, recipe, environment):
    status, output = sweep(tmp_path, "tiny.yaml", "--trials=1", "--jobs=1", "--name=night-shift", REAL="1")
    (folder,) = (path for path in tmp_path.glob("runs/night-shift/trials/*") if path.is_dir())
    assert status == 0, output + folder.with_suffix(".log").read_text()
    (offline,) = folder.glob("wandb/offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(offline)]
    written = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    (started,) = (record["run"] for record in map(json.loads, written.splitlines()) if record["type"] == "run")
    assert (started["run_group"], started["job_type"]) == ("night-shift", "trial-0")
    assert started["display_name"] == folder.name
    config = started["config"]["update"]
    rate = yaml.safe_load((folder / "recipe.yaml").read_text())["model"]["schedule"]["learning_rate"]
    assert config["model"]["schedule"]["learning_rate"] == rate != 3e-3, "not the value of the trial"
    assert f"learning_rate {rate:.4g}\n" in output
    assert from_pretrained(folder).task_name == "reverse"
    (row,) = (tmp_path / "runs/night-shift/trials.csv").read_text().splitlines()[1:]
    assert row.startswith("0,finished,")
