"""How tests run ``python -m lightning_ham.fit``: as a process of its own, in a folder of its own."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import yaml
from hypothesis import HealthCheck, settings

# Imports once what takes seconds to import, and forks for every run: each is a process like any other, with its own
# folder, environment, output and exit status, but starts at once, and ends without taking apart what it has inherited.
# Its arguments are the modules to import. W&B makes a folder for its files when it is imported, and removes it at the
# end of the process: where runs log to it, each must import it itself.
SERVER = """
import atexit, os, sys

status = 1  # of an exception that nobody handles

@atexit.register
def end():  # is called last, as it is the first
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)

import gc, importlib, json
from lightning_ham import command_line

for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()  # what is inherited need not be searched for garbage
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environment"])
        for number, name in enumerate((os.devnull, job["stdout"], job["stderr"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        sys.argv = ["fit", *job["arguments"]]
        try:
            command_line.run(importlib.import_module("lightning_ham.fit").main)
        except SystemExit as ended:
            status = ended.code
            raise
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

NUMERICAL = [
    "controllers",
    "kernels/test_arithmetic.py",
    "memory",
    "models",
    "test_learning.py",
    "test_processor.py",
    "training/test_losses.py",
    "training/test_module.py",
]
"""Tests that compare numbers, or learn: these are also run as on a processor of another kind (``make test-plain``)."""


settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # however slow it is


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests; put files with slow ones first, so that no process has much left when the others have ended."""
    here = Path(__file__).parent
    is_covered = config.pluginmanager.hasplugin("_cov")
    for item in items:
        if any(item.path.is_relative_to(here / name) for name in NUMERICAL):
            item.add_marker("numerical")
        if is_covered and any(map(item.get_closest_marker, ("numerical", "slow"))):
            item.add_marker("no_cover")  # it would take a third longer, or more
    long_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long_files)


TINY = {
    "seed_everything": 3,
    "task": "search",
    "model": {"controller_options": {"controller_size": 8, "leaf_size": 8}, "schedule": {"learning_rate": 0.03}},
    "data": {
        "batch_size": 16,
        "batches_per_epoch": 4,
        "capacity": 8,
        "validation_episodes": 96,
        "validation_lengths": [[2, 8], [9, 16]],
    },
    # Goes on as soon as not everything is wrong: in Search that is at once.
    "curriculum": {"threshold": 1.0},
    "trainer": {"max_epochs": 3, "accelerator": "cpu", "log_every_n_steps": 1},
    "evaluation": {"lengths": [[2, 8], [9, 16]], "episodes": 50},
}


@dataclasses.dataclass
class Finished:
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str


class Fit:
    """Runs ``fit`` in forks of a server."""

    def __init__(self, server: subprocess.Popen[str], environment: dict[str, str], logs: Path) -> None:
        self.server = server
        self.environment = environment
        self.logs = logs
        self.number = 0

    def start(self, folder: Path, *arguments: str, without: Sequence[str] = (), **environment: str) -> int:
        """Start a run in ``folder``; return the process's id. It must be waited for before the next one is started."""
        self.number += 1
        kept = {name: value for name, value in self.environment.items() if name not in without}
        job = {
            "folder": str(folder),
            "arguments": [str(argument) for argument in arguments],
            "environment": kept | environment,
            "stdout": str(self.output("stdout")),
            "stderr": str(self.output("stderr")),
        }
        print(json.dumps(job), file=_stream(self.server.stdin), flush=True)
        return int(_stream(self.server.stdout).readline())

    def is_running(self, process: int) -> bool:
        return Path(f"/proc/{process}").exists() if Path("/proc").exists() else True

    def output(self, name: str) -> Path:
        return self.logs / f"{self.number}.{name}"

    def wait(self) -> Finished:
        """Wait for the run that was started last."""
        returncode = int(_stream(self.server.stdout).readline())
        return Finished(returncode, *(self.output(name).read_text() for name in ("stdout", "stderr")))

    def __call__(self, folder: Path, *arguments: str, without: Sequence[str] = (), **environment: str) -> Finished:
        """Run to the end, with variables of the environment and ``without`` others."""
        self.start(folder, *arguments, without=without, **environment)
        return self.wait()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@pytest.fixture
def restored_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the threads of PyTorch and of compiled loops after a test that changes them."""
    import torch

    from lightning_ham.engines import threads

    monkeypatch.setattr(threads, "_threads", None)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without W&B account or settings, and without logging."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "PL_", "NETRC"))}
    home = str(tmp_path_factory.mktemp("home"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    mine = {"HOME": home, "PATH": path, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return kept | mine


@pytest.fixture(scope="session")
def make_fit(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., contextlib.AbstractContextManager[Fit]]:
    """Starts servers, for tests whose runs run at the same time; takes the module that each imports first."""

    @contextlib.contextmanager
    def make(module: str = "lightning_ham.fit") -> Iterator[Fit]:
        command, pipe = [sys.executable, "-c", SERVER, module, *PICTURES], subprocess.PIPE
        with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as server:
            yield Fit(server, environment, tmp_path_factory.mktemp("output"))
            _stream(server.stdin).close()

    return make


PICTURES = ("matplotlib.backends.backend_agg", "matplotlib.figure")


@pytest.fixture(scope="session")
def fit(make_fit: Callable[..., contextlib.AbstractContextManager[Fit]]) -> Iterator[Fit]:
    """Runs ``fit`` with arguments in a folder; not where it logs to W&B."""
    with make_fit() as made:
        yield made


@pytest.fixture(scope="session")
def logging_fit(make_fit: Callable[..., contextlib.AbstractContextManager[Fit]]) -> Iterator[Fit]:
    """Runs ``fit`` with arguments in a folder, also where it logs to W&B; takes half a second longer than ``fit``."""
    with make_fit("lightning_ham.runs.recipe.cli") as made:
        yield made


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains in a second."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A hub on loopback, for all tests: see hub_server.py."""
    spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.HubServer(tmp_path_factory.mktemp("hub")) as server:
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what failed by kind and file, so that the last lines of a long run say where to look."""
    reports = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    counts = Counter((_kind(report), report.nodeid.partition("::")[0]) for report in reports)
    if counts:
        terminalreporter.section("failed, by kind and file")
        for (kind, file), count in sorted(counts.items()):
            terminalreporter.write_line(f"{kind:<10} {count:>4}  {file}")


def _kind(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the marks of a test that tell its kind; a file that could not be collected has none."""
    kinds = [kind for kind in ("numerical", "slow") if kind in getattr(report, "keywords", ())]
    return "+".join(kinds) or "other"
