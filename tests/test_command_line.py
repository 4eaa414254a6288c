"""How commands end where their streams, their disk, their locale or their warnings are unusual: in a line at most."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = "from lightning_ham.command_line import run\n"


def python(script: str, redirection: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a shell that redirects its streams."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, RUN + script],
        capture_output=True,
        env=os.environ | environment,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_obstacle_and_get_nothing_of_a_file(closed: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    script = f"""
import os, sys
def main():
    with open({str(file)!r}, "w") as stream:
        print("out", flush=True)
        print("err", file=sys.stderr, flush=True)
        os.system("echo of a child; echo and its complaint >&2")
        stream.write(sys.stdin.read() + "mine")
    return 3
run(main)
"""
    done = python(script, closed + ("" if "<" in closed else " </dev/null"))
    assert done.returncode == 3
    assert file.read_text() == "mine"
    assert done.stdout == ("" if closed.replace("2>&-", "").count(">&-") else "out\nof a child\n")
    assert done.stderr == ("" if "2>&-" in closed else "err\nand its complaint\n")


@pytest.mark.parametrize("flush", ["True", "False"])
def test_a_full_disk_behind_the_output_is_one_line(flush: str) -> None:
    done = python(f"run(lambda: print('out', flush={flush}) or 0)", ">/dev/full")
    assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device\n")


def test_a_full_disk_behind_everything_is_a_status() -> None:
    script = "import sys; run(lambda: print('out') or print('err', file=sys.stderr) or 0)"
    assert python(script, ">/dev/full 2>/dev/full").returncode == 1


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    done = python("run(lambda: print('out\\n' * 100000) or 0)", "| head -1")
    assert (done.stdout, done.stderr) == ("out\n", "")


@pytest.mark.parametrize(("end", "status"), [("sys.exit(2)", 2), ("sys.exit()", 0), ("sys.exit('said')", 1)])
def test_a_command_may_exit_by_itself(end: str, status: int) -> None:
    done = python(f"import sys; run(lambda: {end})")
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "said\n" if "said" in end else "")


def test_what_the_terminal_cannot_show_is_shown_otherwise() -> None:
    done = python("run(lambda: print('\\u00e9 \\udce9') or 0)", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xe9 \\udce9\n", "")


def fit(recipe: Path, name: bytes, folder: Path, environment: dict[str, str], redirection: str = ""):
    command = 'exec "$0" -W error -m lightning_ham.fit "$1" --trainer.max_epochs 1 --run_dir "$2" ' + redirection
    return subprocess.run(
        ["sh", "-c", command, sys.executable, recipe, name],
        cwd=folder,
        env=environment,
        capture_output=True,
        check=False,
    )


@pytest.mark.slow
def test_a_training_ends_well_with_warnings_as_errors_in_the_c_locale_and_without_output(
    tiny_recipe: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    done = fit(tiny_recipe, "é".encode(), tmp_path, environment | {"LC_ALL": "C", "WANDB_MODE": "offline"}, ">&-")
    stderr = done.stderr.decode()
    assert done.returncode == 0, stderr
    first, *_, trained, following = stderr.splitlines()
    assert first.startswith("Training search")
    assert trained.endswith("The model is in é/model")
    assert following.startswith("Next: python -m lightning_ham.solve 'é' FILE, ")
    assert len(stderr.splitlines()) == 4
    assert "--run_dir 'é'" in (tmp_path / "é" / "model" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "locale", "shown"),
    [
        (
            "é".encode(),
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            "in ascii, .* got .*udcc3.udca9",
        ),
        (b"\xe9", {"LC_ALL": "C"}, "in utf-8, .* got .*udce9"),
    ],
)
def test_a_run_folder_whose_name_is_no_text_is_refused_before_anything_is_written(
    name: bytes, locale: dict[str, str], shown: str, tiny_recipe: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    done = fit(tiny_recipe, name, tmp_path, environment | locale)
    assert done.returncode == 2
    line = rf"error: Expected a --run_dir whose name is text {shown}; set PYTHONUTF8=1 .*\n"
    assert re.fullmatch(line, done.stderr.decode())
    assert not list(tmp_path.iterdir())
