"""How tests run ``python -m lightning_ham.sweep``: forked from a server, with trainings that take no time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPE = {
    "seed_everything": 1,
    "task": "reverse",
    "model": {"controller_options": {"controller_size": 8, "leaf_size": 8}},
    "data": {
        "batch_size": 8,
        "batches_per_epoch": 2,
        "capacity": 2,
        "validation_episodes": 8,
        "validation_lengths": ["1-2"],
    },
    "trainer": {"max_epochs": 3},
    "stop": {"errors": {"1-2": 0.0}},
    "evaluation": {"lengths": ["1-2"], "episodes": 8},
    "sweep": {"model.schedule.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
}

# Imports once what takes seconds, and forks for every command. By default trainings are those of training.py, and
# neither are the values of the space tried, nor the best recipe and pictures made, which takes seconds. With FULL=1
# they are, and with REAL=1 trainings are real.
SERVER = f"""
import gc, json, os, pathlib, signal, subprocess, sys, types
import matplotlib.backends.backend_agg, matplotlib.figure
from lightning_ham import command_line, sweep
from lightning_ham.runs import processes
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.sweeps import plan, session
import lightning_ham.runs.train, optuna, psycopg

def start(command, **options):
    training = [sys.executable, "-SE", {str(Path(__file__).with_name("training.py"))!r}, *command[3:]]
    return subprocess.Popen(command if "REAL" in os.environ else training, **options)

built = RecipeCLI(pathlib.Path(sys.argv[1]), [])
optuna.storages.RDBStorage("sqlite:///:memory:")  # imports what is left
gc.freeze()
for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(job["folder"])
        os.environ.update(job["environment"])
        processes.subprocess = types.SimpleNamespace(
            Popen=start, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
        )
        processes._POLL, session._POLL = 0.05, 0.1
        if "REAL" in os.environ:
            del os.environ["WANDB_MODE"]
        if "FULL" not in os.environ:
            plan._checked = lambda recipe, overrides, space: built
            session.write_best = session.write_pictures = lambda plan, study: []
        for number, name in enumerate((os.devnull, job["output"], job["output"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        sys.argv = ["sweep", *job["arguments"]]
        command_line.run(sweep.main)
    print(child, flush=True)
"""


class Sweep:
    """One ``python -m lightning_ham.sweep`` that was started."""

    def __init__(self, server: "Server", pid: int, output: Path) -> None:
        self._server, self.pid, self._output = server, pid, output

    @property
    def output(self) -> str:
        return self._output.read_text()

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        return int(self._server.ask({"wait": self.pid}))


class Server:
    """Starts sweeps in a folder."""

    def __init__(self, process: "subprocess.Popen[str]", outputs: Path) -> None:
        self._process, self._outputs, self._number = process, outputs, 0

    def ask(self, job: dict[str, Any]) -> str:
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return self._process.stdout.readline()

    def start(self, folder: Path, *arguments: str, **environment: str) -> Sweep:
        self._number += 1
        output = self._outputs / str(self._number)
        words = [str(argument) for argument in arguments]
        job = {"folder": str(folder), "arguments": words, "environment": environment, "output": str(output)}
        return Sweep(self, int(self.ask(job)), output)

    def __call__(self, folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run to the end; return exit status and output."""
        started = self.start(folder, *arguments, **environment)
        return started.wait(), started.output


@pytest.fixture(scope="session")
def sweep(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    outputs = tmp_path_factory.mktemp("sweeps")
    command = [sys.executable, "-c", SERVER, str(_write_recipe(outputs))]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Server(server, outputs)
        server.stdin.close()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with a space, in the folder of the test."""
    return _write_recipe(tmp_path)


def _write_recipe(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], Any]], Any]:
    """Waits until a condition holds; returns what it returned."""

    def until(condition: Callable[[], Any]) -> Any:
        while not (found := condition()):
            time.sleep(0.02)
        return found

    return until
