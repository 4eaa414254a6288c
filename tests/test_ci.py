"""CI installs the programs that tests run, or says which it could not: run with commands that only write down."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = "chromium postgresql iproute2"
STEPS = [
    "make .venv/.installed",
    "make --jobs=2 --keep-going lint test",
    "make test-plain NUMERICAL=numerical and not slow PLAIN_TESTS=tests/memory tests/kernels tests/models "
    "tests/test_processor.py",
]


@pytest.fixture
def ci(tmp_path):
    """Runs CI as a user, where some packages are installed, and apt-get has a status; returns what it called."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    commands = tmp_path / "bin"
    commands.mkdir()

    def run(user: int, installed: str, status: int = 0) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        log = tmp_path / "log"
        scripts = {
            "make": f'echo make "$@" >> {log}',
            "dpkg-query": f'case " {installed} " in *" ${{!#}} "*) echo installed;; *) exit 1;; esac',
            "id": f"echo {user}",
            "sudo": f'echo sudo >> {log}; shift; exec "$@"',
            "apt-get": f'echo apt-get "$@" >> {log}; echo "apt-get is asked"; exit {status}',
        }
        for name, script in scripts.items():
            (commands / name).write_text(f"#!/bin/bash\n{script}\n")
            (commands / name).chmod(0o755)
        environment = os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
        command = [tmp_path / ".ci" / "run"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done, log.read_text().splitlines()

    return run


def test_nothing_is_installed_where_all_is_there(ci):
    done, called = ci(1000, PROGRAMS)
    assert (done.returncode, called) == (0, STEPS)


@pytest.mark.parametrize(("user", "before"), [(0, []), (1000, ["sudo"])])
def test_what_is_missing_is_installed(ci, user, before):
    done, called = ci(user, "postgresql")
    assert done.returncode == 0, done.stderr
    installing = [line for line in called if not line.startswith("make")]
    assert installing == [
        *before,
        "apt-get update",
        *before,
        "apt-get install -y --no-install-recommends chromium iproute2",
    ]
    assert [line for line in called if line.startswith("make")] == STEPS


def test_where_they_cannot_be_installed_it_says_so_and_runs_no_test(ci):
    done, called = ci(0, "", status=100)
    assert done.returncode == 1
    assert sorted(called) == ["apt-get update", STEPS[0]]
    assert done.stderr == (
        "Missing: chromium postgresql iproute2\n"
        "apt-get is asked\n"
        f"error: Expected the Debian packages {PROGRAMS}, but they could not be installed (see above). "
        "Install them as root, then run this again.\n"
    )
