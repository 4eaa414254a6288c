"""The README's code runs as it stands there.

Its blocks are executed from top to bottom in one empty folder, as a reader would: files are written, Python is
executed, shell commands are typed into bash, and what the README says they print is compared. Three tables say what
is done otherwise: commands that are not run, and those that are run smaller.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from lightning_ham.runs.recipe.catalog import find_recipe
from lightning_ham.runs.recipe.cli import RecipeCLI

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

NOT_RUN = {
    "make fit": "it trains for minutes; that it trains the recipe named is read from the Makefile",
    "make test": "it runs this test; that it runs all tests is read from the Makefile",
    "hf auth login": "it asks for a token; HF_TOKEN has one for the hub on loopback that is pushed to",
}
SMALLER_COMMANDS = {  # what a command begins with: the options added to it
    "python -m lightning_ham.fit": (
        "--trainer.max_epochs 1 --data.batches_per_epoch 2 --data.batch_size 8 --data.validation_episodes 8 "
        "--evaluation.episodes 8 --threads 1"
    ),
    "python -m lightning_ham.evaluate": "--episodes 8 --threads 1",
    "python -m lightning_ham.reproduce": (
        "--only sort --seeds 1 --models ham --episodes 8 --long_episodes 2 --trainer.max_epochs=1 "
        "--data.batches_per_epoch=2 --data.batch_size=8 --data.validation_episodes=8"
    ),
    # No network, and into a folder on the path instead of the environment that runs the tests.
    "pip install .": "--quiet --no-index --no-deps --no-build-isolation --target site",
}
SMALLER_PYTHON = {  # what is replaced in Python, and by what
    "max_epochs=30": "max_epochs=1",
    "capacity=8,": "capacity=8, batches_per_epoch=2, batch_size=8, validation_episodes=8,",
}
NOT_CODE = {"bibtex"}


class Block(NamedTuple):
    line: int
    language: str
    code: str

    @property
    def file(self):
        """The name of the file that the block is, where its first line says so."""
        match = re.match(r"# ([\w-]+\.\w+)\n", self.code)
        return match and match[1]


class Command(NamedTuple):
    line: str
    output: str


def blocks():
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield Block(README.count("\n", 0, match.start()) + 1, match[1], match[2])


def commands(console):
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        yield Command(line, output)


BLOCKS = list(blocks())
MAINTAINERS = next(block for block in BLOCKS if block.language == "console" and "lightning_ham.results" in block.code)
RUN = [block for block in BLOCKS if block.language not in NOT_CODE and block != MAINTAINERS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the reader works, from the first block to the last."""
    return tmp_path_factory.mktemp("reader")


def smaller(line):
    for start, options in SMALLER_COMMANDS.items():
        if line.startswith(start):
            return f"{line} {options}"
    return line


def type_into_bash(lines, folder, **variables):
    """Run lines in one shell; return what each printed, on either stream, and its status."""
    mark = "@@status"
    script = "".join(f"{line}\nstatus=$?; echo {mark} $status; (exit $status)\n" for line in lines)
    environment = (
        os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")]),
            "WANDB_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
        }
        | variables
    )
    ran = subprocess.run(
        ["bash"], input=script, cwd=folder, env=environment, stderr=subprocess.STDOUT, stdout=-1, text=True, check=False
    )
    parts = re.split(rf"{mark} (\d+)\n", ran.stdout)
    return list(zip(parts[::2], map(int, parts[1::2]), strict=False))


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=[f"line-{block.line}-{block.language}" for block in RUN])
def test_block_runs(block, folder, monkeypatch, hub_server):
    if block.file:
        (folder / block.file).write_text(block.code, encoding="utf-8")
    elif block.language == "python":
        run_python(block.code, folder, monkeypatch)
    elif block.language == "console":
        run_console(block.code, folder, HF_HOME=str(folder / "hf"), HF_TOKEN="hf_ada", **hub_server.variables)
    else:
        pytest.fail(f"a block of {block.language or 'no language'} that is neither run nor a file:\n{block.code}")


def run_python(code, folder, monkeypatch):
    for old, new in SMALLER_PYTHON.items():
        code = code.replace(old, new)
    lines, printed = code.splitlines(), []

    def record(*values):
        comment = lines[sys._getframe(1).f_lineno - 1].partition("  # ")[2]
        printed.append((" ".join(map(str, values)), comment))

    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__", "print": record})
    assert all(got == expected for got, expected in printed if expected), printed


def run_console(console, folder, **variables):
    run = [command for command in commands(console) if command.line not in NOT_RUN]
    results = type_into_bash([smaller(command.line) for command in run], folder, **variables)
    assert len(results) == len(run), "the shell ended early"
    for number, (command, (output, status)) in enumerate(zip(run, results, strict=True), 1):
        status_is_shown = [following.line for following in run[number : number + 1]] == ["echo $?"]
        assert (status != 0) == status_is_shown, f"{command.line}\n{output}"
        if command.output:
            assert output == command.output, command.line


def test_tables_of_exceptions_are_used():
    lines = [command.line for block in BLOCKS if block.language == "console" for command in commands(block.code)]
    python = "".join(block.code for block in RUN if block.language == "python" and not block.file)
    assert set(NOT_RUN) <= set(lines)
    assert all(any(line.startswith(start) for line in lines) for start in SMALLER_COMMANDS)
    assert all(python.count(old) == 1 for old in SMALLER_PYTHON)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("fit", "python -m lightning_ham.fit recipes/merge.yaml"),
        ("test", "python -m pytest -q"),
        ("lint", "ruff check"),
    ],
)
def test_make_does_what_the_readme_says(target, command):
    assert f"make {target}" in README
    made = subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert any(command in line and "-m 'not" not in line for line in made.splitlines())


def test_page_is_up_to_date(tmp_path):
    """The maintainers' commands, in a copy of the checkout, change nothing."""
    for name in ("lightning_ham", "docs", "model_cards", "results", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "RESULTS.md"):
        shutil.copy(ROOT / name, tmp_path)
    results = type_into_bash([command.line for command in commands(MAINTAINERS.code)], tmp_path)
    assert [status for _, status in results] == [0, 0, 0], results
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("model_cards/*.md"),
        *ROOT.glob("lightning_ham/hub/weights/*/README.md"),
    ]:
        made = tmp_path / path.relative_to(ROOT)
        if made.exists():
            assert made.read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), f"{made.name} is stale"
    for path in ROOT.glob("docs/*.svg"):
        drawn = [
            _without_probabilities(svg.read_text(encoding="utf-8")) for svg in (path, tmp_path / "docs" / path.name)
        ]
        assert drawn[0] == drawn[1], f"{path.name} is stale"


def _without_probabilities(svg):
    """A picture without the digits that another processor may round differently."""
    return re.sub(r">[01]\.\d\d+</text></g>", "></text></g>", svg)


@pytest.mark.filterwarnings("ignore")
def test_options_that_select_the_papers_way_exist():
    table = README.partition("## What differs from the paper")[2].partition("\n## ")[0]
    options = re.findall(r"`(--[^`]+)`", table)
    assert len(options) > 10
    for option in options:
        cli = RecipeCLI(find_recipe("merge"), option.split())
        assert cli.model.model.task_name == "merge"


def test_links_lead_somewhere():
    headings = {
        re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in re.findall(r"^#+ (.+)$", README, re.M)
    }
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if not target.startswith("https://")]
    assert targets
    for target in targets:
        assert target[1:] in headings if target.startswith("#") else (ROOT / target).exists(), target


def test_folders_in_the_layout_exist():
    layout = README.partition("## Layout")[2]
    folders = re.findall(r"`([\w/]+/)`", layout)
    assert len(folders) > 6
    for name in folders:
        assert (ROOT / name).is_dir(), name
