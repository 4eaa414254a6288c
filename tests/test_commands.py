"""`python -m lightning_ham`: which commands there are, and which version this is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_ham
from lightning_ham.__main__ import main

PACKAGE = Path(lightning_ham.__file__).parent
MODULES = {path.stem for path in PACKAGE.glob("*.py") if "    run(main)\n" in path.read_text(encoding="utf-8")}
MODULES |= {path.parent.name for path in PACKAGE.glob("*/__main__.py")}


def test_every_command_is_listed_with_a_line_of_what_it_is_for(capsys):
    assert main([]) == 0
    listed = re.findall(r"^  python -m lightning_ham\.(\w+).*\n      (\w.*\w)$", capsys.readouterr().out, re.MULTILINE)
    assert {command for command, _ in listed} == MODULES - {"__main__"}
    assert dict(listed)["solve"] == "Answer your own data with a model"
    assert len(dict(listed)) == len(listed)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_the_same_list(option, capsys):
    assert main([]) == 0
    expected = capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert (ended.value.code, capsys.readouterr().out) == (0, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "sort"], "Expected no argument, but got 'fit'; did you mean python -m lightning_ham.fit sort?"),
        (
            ["sovle", "my file"],
            "Expected no argument, but got 'sovle'; did you mean python -m lightning_ham.solve 'my file'?",
        ),
        (["xyz"], "Expected no argument, but got 'xyz'; see --help for the commands that there are."),
        (["--verson"], "Unknown argument '--verson'; did you mean --version?"),
    ],
)
def test_what_it_does_not_know_is_told_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert (ended.value.code, *capsys.readouterr()) == (2, "", f"error: {message}\n")


def test_it_says_the_version_at_once():
    command = [sys.executable, "-X", "importtime", "-m", "lightning_ham", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"lightning_ham {lightning_ham.__version__}\n"
    assert not re.search(r"\| +(torch|numpy)$", done.stderr, re.MULTILINE), "it imports nothing that takes long"
