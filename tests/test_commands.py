"""`lightning-ham` and `python -m lightning_ham`: which commands there are, that they are the same, and the version."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
import shtab

import lightning_ham
from lightning_ham import completion, console
from lightning_ham.__main__ import main
from lightning_ham.controllers import controller_names
from lightning_ham.hub import list_pretrained
from lightning_ham.runs import commands
from lightning_ham.runs.recipe.catalog import recipe_names
from lightning_ham.runs.recipe.keys import key_types

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
        (["sovle", "my file"], "Unknown command 'sovle'; did you mean python -m lightning_ham.solve 'my file'?"),
        (["new_plugin"], "Unknown command 'new_plugin'; did you mean python -m lightning_ham.new_plugin?"),
        (["fti", "sort"], "Unknown command 'fti'; did you mean python -m lightning_ham.fit sort?"),
        (["--verson"], "Unknown argument '--verson'; did you mean --version?"),
        (["--threads", "2", "fit"], "Unknown argument '--threads'; see --help."),
    ],
)
def test_what_it_does_not_know_is_told_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert (ended.value.code, *capsys.readouterr()) == (2, "", f"error: {message}\n")


# The same by every name. `lightning-ham` is the script that pip makes of the entry point.


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("bin") / "lightning-ham"
    file.write_text(f"#!{sys.executable}\nfrom lightning_ham.__main__ import enter\nenter()\n")
    file.chmod(0o755)
    return file


def run(command: list[str], folder: Path = Path(), **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **options)


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "--json"],
        ["solve", "ham-reverse", "missing.csv"],
        ["fit", "srot"],
        ["draw", "ham-sort", "--lenght", "5"],
    ],
)
def test_a_command_is_the_same_by_every_name(arguments, capsys):
    own = importlib.import_module(console.module_of(arguments[0])).main
    ended = []
    for call in (lambda: main(arguments), lambda: own(arguments[1:])):
        try:
            status = call()
        except SystemExit as end:
            status = end.code
        ended.append((status, *capsys.readouterr()))
    assert ended[0] == ended[1]
    assert any(ended[0][1:])


def test_the_console_command_takes_a_pipe_and_gives_one_that_may_close(script):
    done = run(["sh", "-c", f"seq 5000 | {script} solve ham-reverse --format jsonl 2>&1 | head -n 1"])
    assert re.match("<stdin>:1: Expected .+", done.stdout)
    done = run(["sh", "-c", f"{script} --help | head -n 1"])
    assert (done.stdout, done.stderr) == ("usage: lightning-ham [-h] [--version]\n", "")


@pytest.mark.parametrize("command", ["fit", "solve", "models"])
def test_help_shows_what_the_user_typed(command, monkeypatch, capsys):
    module = "lightning_ham/__main__.py"
    for started, form in (
        ("/somewhere/bin/lightning-ham", f"lightning-ham {command}"),
        (r"C:/venv/Scripts/lightning-ham.exe", f"lightning-ham {command}"),
        (f"/somewhere/{module}", f"python -m lightning_ham {command}"),
        (f"/somewhere/lightning_ham/{command}.py", f"python -m lightning_ham.{command}"),
    ):
        monkeypatch.setattr(sys, "argv", [started, command, "--help"])
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert f"usage: {form} " in shown
        assert len(re.findall(rf"(?:python -m lightning_ham[ .]|lightning-ham ){command}\b", shown)) == shown.count(
            form
        )


def test_commands_that_a_run_suggests_are_those_that_the_user_has(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(script.parent))
    assert commands.command("solve", "my run") == "lightning-ham solve 'my run'"
    monkeypatch.setenv("PATH", "/nowhere")
    assert commands.command("solve", "my run") == f"{script} solve 'my run'"
    monkeypatch.setattr(sys, "argv", ["/somewhere/lightning_ham/fit.py"])
    assert commands.command("solve", "my run") == f"{sys.executable} -m lightning_ham.solve 'my run'"


WAITS = """
import time
from lightning_ham import draw
from lightning_ham.__main__ import enter
draw.main = lambda arguments: print("ready", flush=True) or time.sleep(600)
enter()
"""


def test_ctrl_c_ends_it_in_silence():
    command = [sys.executable, "-c", WAITS, "draw"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert (process.stderr.read(), process.wait()) == (b"", 130)


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_it_says_the_version_and_the_commands_at_once(option):
    done = run([sys.executable, "-X", "importtime", "-m", "lightning_ham", option])
    assert done.stdout.startswith(
        {"--version": f"lightning_ham {lightning_ham.__version__}\n", "--help": "usage: "}[option]
    )
    assert not re.search(r"\| +(torch|numpy)$", done.stderr, re.MULTILINE), "it imports nothing that takes long"


# Completion, in the shells themselves.


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> Path:
    """A folder with the script for each shell, a recipe and a run."""
    folder = tmp_path_factory.mktemp("completion")
    parser = completion.all_commands()
    for shell in completion.SHELLS:
        (folder / f"_lightning-ham.{shell}").write_text(shtab.complete(parser, shell))
    (folder / "_lightning-ham").write_text((folder / "_lightning-ham.zsh").read_text())
    (folder / "mine.yaml").touch()
    (folder / "runs").mkdir()
    return folder


def test_completion_prints_what_is_tested_here(scripts, capsys):
    assert completion.main(["zsh"]) == 0
    assert capsys.readouterr().out == (scripts / "_lightning-ham").read_text() + "\n"


FILES = ["mine.yaml", "runs"]
COMPLETIONS = {
    "": [*console.COMMANDS, *console.FOR_MAINTAINERS],
    "dr": ["draw"],
    "fit ": [*recipe_names(), *FILES],
    "fit paper/re": ["paper/reverse", "paper/reverse-soft"],
    "fit sort --": [*(f"--{key}" for key in key_types()), "--help", "--print_config"],
    "fit sort --data.start": ["--data.start_capacity"],
    "fit sort --model.controller ": controller_names(),
    "fit sort --model.engine ": ["auto", "reference", "sparse", "fused"],
    "fit sort --hub.private ": ["true", "false"],
    "fit sort --wandb.mode offline --task pri": ["priority_queue"],
    "solve ": [*(model.name for model in list_pretrained()), *FILES],
    "solve ham-sort --format ": ["csv", "jsonl"],
    "solve ham-sort m": ["mine.yaml"],
    "push ": ["runs"],
    "completion ": ["bash", "fish", "zsh"],
}


@pytest.mark.parametrize(("typed", "expected"), COMPLETIONS.items(), ids=COMPLETIONS)
def test_bash_completes(typed, expected, scripts):
    words = f"lightning-ham {typed}".split(" ")
    calls = f"""
        source _lightning-ham.bash
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)}) COMP_CWORD={len(words) - 1}
        read -ra registered <<< "$(complete -p lightning-ham)"  # complete -o bashdefault -F FUNCTION lightning-ham
        "${{registered[-2]}}"
        printf '%s\n' "${{COMPREPLY[@]}}"
    """
    done = run(["bash", "--norc", "-c", calls], scripts)
    found = [word for word in done.stdout.split() if not word.startswith("_lightning-ham") and word != "-h"]
    assert (sorted(found), done.stderr) == (sorted(expected), "")


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(("typed", "expected"), COMPLETIONS.items(), ids=COMPLETIONS)
def test_fish_completes(typed, expected, scripts):
    done = run(
        ["fish", "--no-config", "-c", f"source _lightning-ham.fish; complete -C 'lightning-ham {typed}'"], scripts
    )
    found = [line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines()]
    found = [word for word in found if not word.startswith("_lightning-ham")]
    if typed.endswith("--"):
        assert set(expected) <= set(found)
    else:
        assert sorted(found) == sorted(expected)


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_completes(scripts):
    shell = pexpect.spawn(
        "zsh",
        ["-f", "-i"],
        env=os.environ | {"TERM": "dumb", "PS1": "READY> "},
        cwd=scripts,
        encoding="utf-8",
        timeout=30,
    )
    shell.sendline("fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; PS1='READY> '; echo BE''GIN")
    shell.expect_exact("BEGIN")
    for typed, (expected,) in ((typed, words) for typed, words in COMPLETIONS.items() if len(words) == 1):
        shell.expect_exact("READY> ")
        shell.send(f"lightning-ham {typed}\t")
        shell.expect_exact(f"lightning-ham {typed.rpartition(' ')[0]} {expected}".replace("  ", " "))
        shell.sendline("\x15")  # which empties the line
    shell.close()
