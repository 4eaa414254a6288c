"""What CONTRIBUTING.md names is there, and its commands run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
NOT_RUN = {  # each with the reason
    "make .venv/.installed": "it downloads; tests/test_makefile.py runs it",
    ". .venv/bin/activate": "the tests have an environment",
    "python -m pytest -q tests/memory -k tree": "the two before it show the same",
    "make test": "it runs this test",
    "python -m pytest -q -m 'not slow' --numprocesses auto --dist loadfile": "it runs this test",
    "make test-plain": "it takes minutes",
    "make lint": "CI runs it",
    "ruff check --fix": "it changes files",
    "ruff format": "it changes files",
    "python -m lightning_ham.fit sort --run_dir runs/new-sort": "it trains for minutes",
    "python -m lightning_ham.evaluate runs/new-sort --lengths 1-32 33-128 --episodes 10000": "it takes minutes",
    "python -m lightning_ham.bundle runs/new-sort ham-sort": "tests/test_bundle.py runs it",
    "git tag v0.1.0": "it changes the clone",
    "make dist": "tests/test_wheel.py runs it",
}
RUN = [command for command in COMMANDS if command not in NOT_RUN]


def test_paths_exist():
    paths = [path for path in re.findall(r"`([\w.-]*/[\w./-]+|[\w-]+\.(?:md|cff))`", PAGE) if "NAME" not in path]
    assert len(paths) > 20
    for path in paths:
        assert (ROOT / path).exists(), path


def test_links_lead_somewhere():
    for page, heading in re.findall(r"\]\(([\w.]*)#?([\w-]*)\)", PAGE):
        text = (ROOT / page).read_text(encoding="utf-8") if page else PAGE
        headings = {
            re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in re.findall(r"^#+ (.+)$", text, re.M)
        }
        assert not heading or heading in headings, (page, heading)


def test_make_has_its_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z][\w-]*)", "\n".join(COMMANDS)):
        assert f"\n{target}:" in makefile, target


def test_table_of_exceptions_is_used():
    assert set(NOT_RUN) <= set(COMMANDS)
    assert len(RUN) == 4


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_command_runs(command):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
