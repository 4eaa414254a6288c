"""`make` makes the environment, and keeps a CPU build of PyTorch that is in it: run with a Python that does nothing."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIN = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))

# Does what this Python does for `-c` and `--version`, and writes down all else that it is asked for.
PYTHON = f"""#!/bin/sh
case "$1" in -c | --version) PYTHONPATH={{site}} exec {sys.executable} "$@";; esac
echo "$@" >> {{log}}
case "$*" in "-m venv --clear .venv") rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python;; esac
"""


@pytest.fixture
def clone(tmp_path):
    """A clone, and a function that makes its environment and returns what was printed and what Python was asked."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON.format(log=tmp_path / "log", site=tmp_path / "site"))
    python.chmod(0o755)

    def make():
        (tmp_path / "log").unlink(missing_ok=True)
        command = ["make", ".venv/.installed", f"PYTHON={python}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout, (tmp_path / "log").read_text().splitlines()

    return tmp_path, make


def install(folder, version, cuda=None, hip=None):
    """Put a PyTorch into `.venv`, as far as it can be seen without importing it."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(folder / "python", folder / ".venv" / "bin")
    (folder / ".venv" / "mine").touch()
    for name in ("torch", f"torch-{version}.dist-info"):
        (folder / "site" / name).mkdir(parents=True)
    (folder / "site" / f"torch-{version}.dist-info" / "METADATA").write_text(f"Name: torch\nVersion: {version}\n")
    text = f"from typing import Optional\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = {hip!r}\n"
    (folder / "site" / "torch" / "version.py").write_text(text)


INSTALL = "-m pip install --constraint .venv/constraints.txt --editable .[dev]"


@pytest.mark.parametrize("version", ["2.14.1+cpu", PIN.removeprefix("torch=="), "99.0"])
def test_a_cpu_build_is_kept_whatever_its_version(clone, version):
    folder, make = clone
    install(folder, version)
    printed, asked = make()
    assert asked == [INSTALL], "the environment is not made anew"
    assert (folder / ".venv" / "mine").exists()
    assert f"Keeping PyTorch {version}, a CPU build that is in .venv." in printed
    assert "0.2 GB" in printed
    expected = (folder / "constraints.txt").read_text().replace(f"{PIN}\n", f"torch=={version}\n")
    assert (folder / ".venv" / "constraints.txt").read_text() == expected
    later = time.time() + 9  # the environment is stale
    os.utime(folder / "pyproject.toml", (later, later))
    assert make()[1] == [INSTALL]
    assert (folder / ".venv" / "constraints.txt").read_text() == expected


@pytest.mark.parametrize("build", [{"cuda": "13.0"}, {"hip": "7.0"}, None])
def test_where_there_is_none_the_environment_is_made_anew_and_the_size_is_said(clone, build):
    folder, make = clone
    if build:
        install(folder, "2.13.0", **build)
    printed, asked = make()
    assert asked == ["-m venv --clear .venv", INSTALL]
    assert not (folder / ".venv" / "mine").exists()
    assert "To download: 3 GB on Linux, where PyTorch comes with CUDA, elsewhere 0.4 GB." in printed
    assert (folder / ".venv" / "constraints.txt").read_text() == (folder / "constraints.txt").read_text()


def test_the_readme_says_the_same_sizes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "3 GB are downloaded" in readme
    assert "A CPU build makes it 0.4 GB." in readme
