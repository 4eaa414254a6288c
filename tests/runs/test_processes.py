"""A training in two processes: one run folder, one course, and an end together.

Most are started by two servers with the variables that torchrun would set; the last ones by torchrun itself, on two
"machines": network namespaces with a cable between them.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from lightning_ham.runs.endings import is_lost_process

RECORDER = """
import hashlib, json, os
from pytorch_lightning import Callback
from lightning_ham.training import BreakUpGuard, MovingAverage

def digest(tensors):
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()

class Recorder(Callback):
    '''Writes down what every process sees in each epoch.'''

    def on_train_start(self, trainer, pl_module):
        self.start = digest(pl_module.parameters())

    def on_train_epoch_start(self, trainer, pl_module):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(digest(batch))

    def on_train_epoch_end(self, trainer, pl_module):
        guard, average = (
            next(callback for callback in trainer.callbacks if isinstance(callback, kind))
            for kind in (BreakUpGuard, MovingAverage)
        )
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seen = {
            "epoch": trainer.current_epoch,
            "start": self.start,
            "weights": digest(pl_module.parameters()),
            "average": digest(average._average_model.module.parameters()),
            "capacity": trainer.datamodule.capacity,
            "returned": guard.returned,
            "norms": list(guard._norms),
            "learning rate": trainer.optimizers[0].param_groups[0]["lr"],
            "metrics": {name: value for name, value in metrics.items() if "second" not in name},
        }
        with open(os.environ["RECORD"], "a") as file:
            file.write(json.dumps({"same": seen, "batches": self.batches}) + chr(10))
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Two:
    """Runs ``fit`` in two processes, each in a folder of its own; only the first may write to its folder."""

    def __init__(self, fits: list, folder: Path) -> None:
        self.fits = fits
        self.folder = folder
        self.homes = [folder / "first", folder / "second"]
        for home in self.homes:
            home.mkdir(parents=True)
            (home / "recorder.py").write_text(RECORDER)

    def start(self, *arguments: object, processes: int = 2) -> list[int]:
        """Start the processes; return their ids."""
        port = free_port()
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "test",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        return [
            fit.start(
                home,
                *arguments,
                "--trainer.callbacks=recorder.Recorder",
                RECORD=str(self.folder / f"{rank}.jsonl"),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                **shared,
            )
            for rank, (fit, home) in enumerate(zip(self.fits[:processes], self.homes, strict=False))
        ]

    def wait(self, processes: int = 2) -> list:
        return [fit.wait() for fit in self.fits[:processes]]

    def __call__(self, *arguments: object, processes: int = 2) -> list:
        self.start(*arguments, "--trainer.devices", processes, processes=processes)
        return self.wait(processes)

    def seen(self) -> list[list[dict]]:
        """What was recorded since the last call, by rank."""
        files = [self.folder / f"{rank}.jsonl" for rank in range(2)]
        lines = [file.read_text().splitlines() if file.exists() else [] for file in files]
        for file in files:
            file.unlink(missing_ok=True)
        return [[json.loads(line) for line in part] for part in lines]


@pytest.fixture(scope="module")
def two_fits(make_fit) -> Iterator[list]:
    with make_fit() as first, make_fit() as second:
        yield [first, second]


@pytest.fixture
def two(two_fits, tmp_path) -> Two:
    return Two(two_fits, tmp_path)


def check_agreement(first: list[dict], second: list[dict]) -> None:
    """The course of a training is the same in both processes, and their episodes differ."""
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one["same"] == other["same"]
    batches = [batch for part in (first, second) for epoch in part for batch in epoch["batches"]]
    assert len(batches) == len(set(batches))


@pytest.mark.slow
def test_processes_agree_and_resume_with_another_number(two, tiny_recipe):
    run = two.homes[0] / "runs" / "mine"
    # So that many updates are skipped, and a new capacity counts as a break-up.
    eager = ["--guard.skip_above", "1.1", "--guard.patience", "1", "--guard.lost_above", "0.5"]
    options = ["--run_dir", run, "--data.batches_per_epoch", "24", *eager]
    done = two(tiny_recipe, *options)
    assert [end.returncode for end in done] == [0, 0], done
    first, second = two.seen()
    check_agreement(first, second)
    assert [epoch["same"]["epoch"] for epoch in first] == [0, 1, 2]
    assert sum(epoch["same"]["metrics"]["train/skipped_updates"] for epoch in first) > 3
    assert first[-1]["same"]["returned"] > 0
    assert len({epoch["same"]["weights"] for epoch in first}) == 3
    assert len({epoch["same"]["capacity"] for epoch in first}) > 1

    # Only the first process writes and speaks.
    assert re.findall(r"^epoch (\d)/3", done[0].stdout, re.MULTILINE) == ["1", "2", "3"]
    assert (done[1].stdout, done[1].stderr) == ("", "")
    assert [path.name for path in two.homes[1].iterdir() if path.name != "__pycache__"] == ["recorder.py"]
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "evaluation.json", "metrics", "model", "recipe.yaml", "training.json",
    ]  # fmt: skip
    curve = json.loads((run / "training.json").read_text())["curve"]
    assert [point["episodes"] for point in curve] == [2 * 24 * 16, 2 * 2 * 24 * 16, 3 * 2 * 24 * 16]

    # One process goes on, then two again.
    (alone,) = two(run / "recipe.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "4", processes=1)
    assert alone.returncode == 0, alone.stderr
    (fourth,), nobody = two.seen()
    assert nobody == []
    assert fourth["same"]["start"] == first[-1]["same"]["weights"]
    done = two(run / "recipe.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "5")
    assert [end.returncode for end in done] == [0, 0], done
    (fifth,), (other_fifth,) = two.seen()
    check_agreement([fifth], [other_fifth])
    assert fifth["same"]["start"] == fourth["same"]["weights"]
    epochs = [*first, *second, fourth, fifth, other_fifth]
    batches = [batch for epoch in epochs for batch in epoch["batches"]]
    assert len(batches) == len(set(batches)) == 24 * (2 * 3 + 1 + 2)
    curve = json.loads((run / "training.json").read_text())["curve"]
    shares = [24 * 16 * processes for processes in (2, 2, 2, 1, 2)]
    assert [point["episodes"] for point in curve] == [sum(shares[: index + 1]) for index in range(5)]


@pytest.mark.slow
def test_processes_stop_together(two, tiny_recipe):
    done = two(tiny_recipe, "--stop.errors", "{2-8: 1.0}", "--guard.returns", "0", "--trainer.max_epochs", "100")
    assert [end.returncode for end in done] == [0, 0], done
    first, second = two.seen()
    check_agreement(first, second)
    assert len(first) < 100
    assert first[-1]["same"]["capacity"] == 8
    assert "The bar is met" in done[0].stderr


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_when_a_process_is_killed_the_other_ends_and_the_run_resumes(two, tiny_recipe, lost):
    run = two.homes[0] / "runs" / "mine"
    endless = ["--trainer.devices", "2", "--trainer.max_epochs", "1000000"]
    processes = two.start(tiny_recipe, "--run_dir", run, *endless)
    wait_until(lambda: "epoch 2/" in two.fits[0].output("stdout").read_text(), two.fits[1 - lost].output("stderr"))
    os.kill(processes[lost], signal.SIGKILL)
    done = two.wait()
    assert (done[lost].returncode, done[1 - lost].returncode) == (-signal.SIGKILL, 1)
    told = done[1 - lost].stderr.splitlines()[-1]
    assert told.startswith(f"error: Process {1 - lost} ends, as it lost contact with the other processes of this")
    assert told.endswith(f"lightning_ham.fit {run}/recipe.yaml --ckpt_path last")
    assert "Traceback" not in done[1 - lost].stderr
    epoch = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"]
    (resumed,) = two(run / "recipe.yaml", "--ckpt_path", "last", "--trainer.max_epochs", epoch + 2, processes=1)
    assert resumed.returncode == 0, resumed.stderr
    assert f"epoch {epoch + 2}/{epoch + 2}" in resumed.stdout


def wait_until(happens, log: Path, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError("[/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:1"), True),
        (RuntimeError("Application timeout caused pair closure"), True),
        (torch.distributed.DistBackendError("NCCL communicator was aborted on rank 1."), True),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (ValueError("gloo/transport/"), False),
    ],
)
def test_what_counts_as_a_lost_process(error, is_lost):
    assert is_lost_process(error) == is_lost


def test_torchrun_with_another_number_of_processes_is_refused(two_fits, tmp_path, tiny_recipe):
    started = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}
    done = two_fits[0](tmp_path, tiny_recipe, **started)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: Expected key 'trainer.devices' times 'trainer.num_nodes' to be the number of processes that torchrun "
        "has started (2), but got 1 times 1.\n"
    )
    assert list(tmp_path.iterdir()) == []


class Machine(NamedTuple):
    """A network namespace with one end of a cable."""

    name: str
    address: str

    @property
    def cable(self) -> str:
        return f"{self.name}c"

    def run(self, command: list, **options) -> subprocess.Popen:
        return subprocess.Popen(["ip", "netns", "exec", self.name, *map(str, command)], **options)

    def unplug(self) -> None:
        ip("-n", self.name, "link", "set", self.cable, "down")


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    """Two machines with a cable between them."""
    made = [Machine(f"ham{os.getpid()}{end}", f"10.77.0.{index}") for index, end in enumerate("ab", start=1)]
    try:
        try:
            for machine in made:
                ip("netns", "add", machine.name)
                ip("-n", machine.name, "link", "set", "lo", "up")
            one, other = made
            ends = [other.cable, "netns", other.name]
            ip("-n", one.name, "link", "add", one.cable, "type", "veth", "peer", "name", *ends)
            for machine in made:
                ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", machine.cable)
                ip("-n", machine.name, "link", "set", machine.cable, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"needs root, Linux and iproute2 for network namespaces: {getattr(error, 'stderr', None) or error}"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
        yield made
    finally:
        for machine in made if shutil.which("ip") else ():
            for process in subprocess.run(["ip", "netns", "pids", machine.name], capture_output=True).stdout.split():
                os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", machine.name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_machines_train_together_until_the_cable_is_unplugged(machines, environment, tmp_path, tiny_recipe):
    first, _ = machines
    homes = [tmp_path / machine.name for machine in machines]
    started = []
    for machine, home in zip(machines, homes, strict=True):
        home.mkdir()
        (home / "recorder.py").write_text(RECORDER)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc_per_node", 1]
        meeting = ["--rdzv_backend", "c10d", "--rdzv_id", "test", "--rdzv_endpoint", f"{first.address}:29400"]
        here = ["--rdzv_conf", f"is_host={int(machine is first)}", "--local_addr", machine.address]
        fit = ["-m", "lightning_ham.fit", tiny_recipe, "--trainer.num_nodes", 2, "--trainer.max_epochs", 1000000]
        patience = ["--trainer.strategy", "DDPStrategy", "--trainer.strategy.timeout", "0:00:30"]
        record = {"RECORD": str(home / "record.jsonl"), "GLOO_SOCKET_IFNAME": machine.cable, "PYTHONPATH": str(home)}
        record["PYTHONPATH"] += os.pathsep + environment.get("PYTHONPATH", "")
        with (home / "stdout").open("w") as stdout, (home / "stderr").open("w") as stderr:
            command = [*torchrun, *meeting, *here, *fit, *patience, "--trainer.callbacks=recorder.Recorder"]
            variables = environment | record
            started.append(machine.run(command, cwd=home, env=variables, stdout=stdout, stderr=stderr))
    told = [home / "stderr" for home in homes]
    wait_until(lambda: "epoch 3/" in (homes[0] / "stdout").read_text() or started[0].poll() is not None, told[0])
    first.unplug()
    for rank, text in enumerate(told):
        ending = f"error: Process {rank} ends, as it lost contact with the other processes of this training"
        wait_until(lambda text=text, ending=ending: ending in text.read_text(), text)
    assert started[0].wait(timeout=300) != 0  # torchrun of the other machine waits on for the first one's
    seen = [[json.loads(line) for line in (home / "record.jsonl").read_text().splitlines()][:3] for home in homes]
    check_agreement(*seen)
    checkpoint = homes[0] / "runs" / "tiny" / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= 1
    assert not (homes[1] / "runs").exists()
