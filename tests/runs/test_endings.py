"""How trainings end early, and that each says how to go on."""

import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

COMMAND = [sys.executable, "-m", "lightning_ham.fit"]
ENDLESS = ("--trainer.max_epochs", "100000")
LAST = Path("runs", "tiny", "checkpoints", "last.ckpt")
RESUME = "Resume with: python -m lightning_ham.fit runs/tiny/recipe.yaml --ckpt_path last"
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def epochs_of(path: Path) -> int:
    if not path.exists():
        return -1
    state = torch.load(path, weights_only=True)
    return state["epoch"] + 1 if state["global_step"] else 0


def is_ignored(number: signal.Signals) -> bool:
    """Whether the tests themselves run where a signal is ignored, which what they start inherits."""
    return signal.getsignal(number) == signal.SIG_IGN


@pytest.mark.parametrize("name", ["SIGHUP", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGALRM"])
def test_a_signal_ends_a_training_with_the_command_that_resumes_it(fit, tmp_path, tiny_recipe, name):
    number = signal.Signals[name]
    if is_ignored(number):
        pytest.skip(f"{name} is ignored here")
    process = fit.start(tmp_path, tiny_recipe, *ENDLESS)
    wait_for(lambda: epochs_of(tmp_path / LAST) >= 1)
    os.kill(process, number)
    done = fit.wait()
    assert done.returncode == 128 + number
    assert done.stderr.splitlines()[1:] == [f"Ended by {name}. {RESUME}"]
    reached = epochs_of(tmp_path / LAST)
    words = shlex.split(RESUME.partition("lightning_ham.fit ")[2])
    done = fit(tmp_path, *words, "--trainer.max_epochs", str(reached + 1))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"epoch {reached + 1}/{reached + 1} ")


def test_a_signal_before_the_training_says_that_nothing_is_lost(fit, tmp_path, tiny_recipe):
    (tmp_path / "slow_start.py").write_text(
        "import os, signal\n"
        "from pytorch_lightning import Callback\n"
        "class SlowStart(Callback):\n"
        "    def on_fit_start(self, trainer, pl_module):\n"
        "        os.kill(os.getpid(), signal.SIGUSR2)\n"
    )
    done = fit(tmp_path, tiny_recipe, "--trainer.callbacks+=slow_start.SlowStart", PYTHONPATH=str(tmp_path))
    assert done.returncode == 128 + signal.SIGUSR2
    assert done.stderr.splitlines()[1:] == ["Ended by SIGUSR2. The training had not begun."]


@pytest.mark.skipif(is_ignored(signal.SIGINT), reason="SIGINT is ignored here")
def test_a_signal_that_python_drops_ends_the_training_at_the_next_update(fit, tmp_path, tiny_recipe):
    """As where it falls into a callback of the compiler, or into the end of an object."""
    (tmp_path / "dropped.py").write_text(
        "import os, signal\n"
        "from pytorch_lightning import Callback\n"
        "class Object:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "class Dropped(Callback):\n"
        "    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):\n"
        "        Object()\n"
    )
    done = fit(tmp_path, tiny_recipe, *ENDLESS, "--trainer.callbacks+=dropped.Dropped", PYTHONPATH=str(tmp_path))
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.splitlines()[-1] == f"Interrupted. {RESUME}"
    assert epochs_of(tmp_path / LAST) == 0


def test_a_second_signal_does_not_wait_for_the_batch(fit, tmp_path, tiny_recipe):
    (tmp_path / "endless.py").write_text(
        "import os, signal, time\n"
        "from pytorch_lightning import Callback\n"
        "class Endless(Callback):\n"
        "    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):\n"
        "        os.kill(os.getpid(), signal.SIGUSR1)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        raise AssertionError('the batch went on')\n"
    )
    done = fit(tmp_path, tiny_recipe, "--trainer.callbacks+=endless.Endless", PYTHONPATH=str(tmp_path))
    assert done.returncode == 128 + signal.SIGUSR1
    assert done.stderr.splitlines()[1:] == [f"Ended by SIGUSR1. {RESUME}"]


def test_sigterm_does_not_wait_for_other_processes_that_wait_for_this_one(fit, tmp_path, tiny_recipe):
    """As Lightning's own handler does, which sends and expects messages wherever the signal comes."""
    (tmp_path / "asking.py").write_text(
        "import signal\n"
        "from pytorch_lightning import Callback\n"
        "class Asking(Callback):\n"
        "    def on_train_end(self, trainer, pl_module):\n"
        "        print('handled by', type(signal.getsignal(signal.SIGTERM).__self__).__name__)\n"
    )
    done = fit(tmp_path, tiny_recipe, "--trainer.callbacks+=asking.Asking", PYTHONPATH=str(tmp_path))
    assert "handled by EndOnSignal\n" in done.stdout


def test_a_signal_that_is_ignored_stays_so(fit, tmp_path, tiny_recipe):
    (tmp_path / "ignoring.py").write_text(
        "import os, signal\n"
        "from pytorch_lightning import Callback\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # as nohup does, before the command begins
        "from lightning_ham import command_line, fit\n"
        "class Hangup(Callback):\n"
        "    def on_train_start(self, trainer, pl_module):\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "if __name__ == '__main__':\n"
        "    command_line.run(fit.main)\n"
    )
    command = [
        sys.executable,
        "ignoring.py",
        tiny_recipe,
        "--trainer.max_epochs=1",
        "--trainer.callbacks+=ignoring.Hangup",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=fit.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_terminal_that_is_closed_ends_its_training_resumably(tmp_path, tiny_recipe, environment):
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execve(sys.executable, [*COMMAND, str(tiny_recipe), *ENDLESS], environment | {"TERM": "xterm"})
    shown = b""
    while b"epoch 2/" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    assert epochs_of(tmp_path / LAST) >= 1


# SLURM, which sends SIGUSR1 before it takes the machine away.


def test_a_preempted_slurm_job_is_resumed_by_the_command_that_it_prints(fit, tmp_path, tiny_recipe):
    process = fit.start(tmp_path, tiny_recipe, *ENDLESS, **SLURM)
    wait_for(lambda: epochs_of(tmp_path / LAST) >= 1)
    os.kill(process, signal.SIGUSR1)
    done = fit.wait()
    assert done.returncode == 128 + signal.SIGUSR1
    assert done.stderr.splitlines()[-1] == f"Ended by SIGUSR1. {RESUME}"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    reached = epochs_of(tmp_path / LAST)
    words = shlex.split(RESUME.partition("lightning_ham.fit ")[2])
    done = fit(tmp_path, *words, "--trainer.max_epochs", str(reached + 1), **SLURM)
    assert done.returncode == 0, done.stderr
    assert epochs_of(tmp_path / LAST) == reached + 1


def test_a_fresh_run_in_a_slurm_job_starts_fresh(fit, tmp_path, tiny_recipe):
    assert fit(tmp_path, tiny_recipe, "--trainer.max_epochs=2").returncode == 0
    shutil.copy(tmp_path / LAST, tmp_path / "hpc_ckpt_1.ckpt")  # as another program of Lightning's leaves it here
    done = fit(tmp_path, tiny_recipe, "--trainer.max_epochs=2", "--seed_everything=4", **SLURM)
    assert done.returncode == 0, done.stderr
    plain = tmp_path / "plain"
    plain.mkdir()
    assert fit(plain, tiny_recipe, "--trainer.max_epochs=2", "--seed_everything=4").returncode == 0
    here, there = (path / "model" / "model.safetensors" for path in (tmp_path / "runs/tiny-2", plain / "runs/tiny"))
    assert here.read_bytes() == there.read_bytes()


def test_what_slurm_was_asked_for_wrongly_is_one_line(fit, tmp_path, tiny_recipe):
    done = fit(tmp_path, tiny_recipe, **SLURM | {"SLURM_NTASKS": "2"})
    assert done.returncode == 2
    assert done.stderr.startswith("error: You set `--ntasks=2` in your SLURM bash script")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# Output that nobody reads, and a disk that is full.


@pytest.mark.slow
@pytest.mark.parametrize("how", ["head", "full", "closed"])
def test_a_training_goes_on_where_its_output_cannot_be_written(tmp_path, tiny_recipe, environment, how):
    script = {"head": '"$@" | head -n 1; exit ${PIPESTATUS[0]}', "full": '"$@" > /dev/full', "closed": '"$@" >&-'}[how]
    command = ["bash", "-c", script, "bash", *COMMAND, str(tiny_recipe), "--trainer.max_epochs", "4"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert epochs_of(tmp_path / LAST) == 4
    assert (tmp_path / "runs" / "tiny" / "evaluation.json").is_file()
    why = {"head": "Broken pipe", "full": "No space left on device", "closed": None}[how]
    said = f"Standard output cannot be written to any more ({why}); the training goes on.\n"
    assert done.stderr.count(said) == (why is not None)
    assert done.stdout.count("\n") == (how == "head")


def test_a_full_disk_is_one_line_with_the_command_that_resumes(fit, tmp_path, tiny_recipe):
    (tmp_path / "full.py").write_text(
        "import resource\n"
        "from pytorch_lightning import Callback\n"
        "class Full(Callback):\n"
        "    def on_fit_start(self, trainer, pl_module):\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"  # as far as one file goes
    )
    done = fit(tmp_path, tiny_recipe, *ENDLESS, "--trainer.callbacks+=full.Full", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()[1:]
    assert line.startswith("error: There is no room left ([Errno 27] File too large: 'runs/tiny/")
    assert line.endswith(RESUME)
    assert not list(tmp_path.rglob("*.partial"))
    reached = epochs_of(tmp_path / LAST)
    words = shlex.split(RESUME.partition("lightning_ham.fit ")[2])
    options = ["--trainer.max_epochs", str(reached + 1), "--trainer.callbacks", "null"]
    assert fit(tmp_path, *words, *options).returncode == 0
