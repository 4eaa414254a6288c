"""`python -m lightning_ham.solve`: real data in, answers out, and every wrong input told by file and line."""

import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from lightning_ham import solve
from lightning_ham.controllers import Rollout
from lightning_ham.engines import threads
from lightning_ham.hub import TrainedModel
from lightning_ham.tasks import Lengths, Task
from lightning_ham.tasks.reverse import Reverse

pytestmark = pytest.mark.usefixtures("restored_threads")

TINY = {"controller_size": 6, "leaf_size": 4}


class Oracle(TrainedModel):
    """Answers as the task's oracle does, always at leaf 0."""

    def _run(self, instances):
        episodes = self.task.encode(instances)
        batch, timesteps, _ = episodes.targets.shape
        depth = episodes.inputs.shape[1].bit_length() - 1
        nothing = torch.zeros(batch, timesteps)
        leaves, branches = nothing.long(), torch.zeros(batch, timesteps, depth)
        rollout = Rollout(2 * episodes.targets - 1, nothing, nothing, nothing, leaves, branches)
        return episodes.inputs, episodes.targets.bool(), rollout, episodes.lengths.tolist()


@pytest.fixture(autouse=True)
def restore_limit_of_digits():
    limit = sys.get_int_max_str_digits()
    yield
    sys.set_int_max_str_digits(limit)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command on the oracle's answers, in an empty folder that holds the given files."""

    def run(task, argv, files=(), stdin=b""):
        monkeypatch.chdir(tmp_path)
        for name, content in dict(files).items():
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        monkeypatch.setattr(solve, "from_pretrained", lambda name: Oracle(task, controller_options=TINY))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            status = solve.main(["MODEL", *argv.split()])
        except SystemExit as exit:
            status = exit.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a saved model for add, whose answers are those of its random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "ham-add"
    TrainedModel("add", controller_options=TINY).save_pretrained(folder)
    return folder


def test_threads_go_to_the_compiled_loops(run):
    torch.set_num_threads(3)
    assert run("reverse", "", stdin=b"7\n1000\n")[0] == 0
    assert (threads.get_num_threads(), torch.get_num_threads()) == (3, 1)


# Answers.

CSV = [
    ("reverse", "a.csv", {"a.csv": "7\n1000\n42\n"}, "42\n1000\n7\n"),
    ("reverse", "a.csv", {"a.csv": "Value\r\n7\r\n1000"}, "1000\n7\n"),
    ("sort", "a.csv", {"a.csv": "9,4\n2,7\n9,1\n"}, "2,7\n9,4\n9,1\n"),
    ("sort", "a.csv", {"a.csv": b'\xef\xbb\xbfkey,value\n 9 , 4\n"2",7\n'}, "2,7\n9,4\n"),
    ("merge", "a.csv b.csv", {"a.csv": "0.2,7\n0.9,1\n", "b.csv": "priority,value\n.5,2\n1,3\n"}, "7\n2\n1\n3\n"),
    ("merge", "a.csv b.csv", {"a.csv": "5e-1,2\n", "b.csv": ""}, "2\n"),
    ("merge", "a.csv b.csv", {"a.csv": "priority,value\n", "b.csv": "0.5,2\n"}, "2\n"),
    ("search", "a.csv --query 9", {"a.csv": "key,value\n2,7\n9,4\n9,1\n"}, "4\n"),
    ("search", "--query 9 a.csv --query 2", {"a.csv": "2,7\n9,4\n"}, "4\n7\n"),
    ("add", "a.csv", {"a.csv": "a,b\n3,6\n0,0\n+5,1\n"}, "9\n0\n6\n"),
    ("add", "a.csv", {"a.csv": f"{10**30},1\n"}, f"{10**30 + 1}\n"),
    ("stack", "a.csv", {"a.csv": "operation,value\npush,7\npush, 30\npop\npop,\n"}, "30\n7\n"),
    ("queue", "a.csv", {"a.csv": "push,7\npush,30\npop"}, "7\n"),
    ("queue", "a.csv", {"a.csv": "push,7\n"}, ""),
    ("priority_queue", "a.csv", {"a.csv": "Operation,Priority,Value\npush,9,4\npush,2,7\npop,,\n"}, "7\n"),
]
JSON_LINES = [
    ("reverse", "[7, 1000, 42]\n[5]\n", "[42, 1000, 7]\n[5]\n"),
    ("sort", "[[9, 4], [2, 7]]\n", "[[2, 7], [9, 4]]\n"),
    ("merge", "[[[0.2, 7], [0.9, 1]], [[0.5, 2]]]\n[[], [[1, 3]]]\n", "[7, 2, 1]\n[3]\n"),
    ("search", "[[[2, 7], [9, 4]], 9]\n", "4\n"),
    ("add", "[6, 3]\n[1, 1]", "9\n2\n"),
    ("stack", '[["push", 7], ["push", 30], ["pop"]]\n[["push", 1]]\n', "[30]\n[]\n"),
    ("priority_queue", '[["push", 9, 4], ["push", 2, 7], ["pop"]]\n', "[7]\n"),
]


@pytest.mark.parametrize(("task", "argv", "files", "expected"), CSV)
def test_csv(run, task, argv, files, expected):
    assert run(task, argv, files) == (0, expected, "")


@pytest.mark.parametrize(("task", "content", "expected"), JSON_LINES)
def test_json_lines_by_name_by_option_and_from_standard_input(run, task, content, expected):
    assert run(task, "a.jsonl", {"a.jsonl": content}) == (0, expected, "")
    assert run(task, "a.txt --format jsonl", {"a.txt": content}) == (0, expected, "")
    assert run(task, "--format jsonl", stdin=content.encode()) == (0, expected, "")


def test_standard_input_is_csv_but_for_merge(run):
    assert run("sort", "", stdin=b"9,4\n2,7\n") == (0, "2,7\n9,4\n", "")
    assert run("sort", "-", stdin=b"9,4\n2,7\n") == (0, "2,7\n9,4\n", "")
    assert run("merge", "", stdin=b"[[[0.2, 7]], [[0.1, 2]]]") == (0, "[2, 7]\n", "")
    assert run("merge", "-", stdin=b"[[[0.2, 7]], [[0.1, 2]]]") == (0, "[2, 7]\n", "")
    assert run("merge", "a.csv -", {"a.csv": "0.2,7\n"}, stdin=b"0.1,2\n") == (0, "2\n7\n", "")


def test_numbers_of_any_size(run):
    huge = "9" * 4300  # the longest that Python reads by default; the sum is longer
    status, out, _ = run("add", "a.jsonl", {"a.jsonl": f"[{huge}, 1]\n"})
    assert status == 0
    assert out == f"1{'0' * 4300}\n"
    assert run("add", "a.csv", {"a.csv": f"{huge}0,0\n"})[:2] == (0, f"{huge}0\n")


def test_a_task_of_another_package_takes_json_lines_only(run, monkeypatch):
    monkeypatch.setattr(Oracle, "__init__", lambda self, *_, **__: renamed(self))
    message = "error: Expected JSON lines for median, which has no form in CSV; add --format jsonl\n"
    assert run("median", "a.csv", {"a.csv": "1\n"}) == (2, "", message)
    assert run("median", "a.jsonl", {"a.jsonl": "[1, 2]\n"}) == (0, "[2, 1]\n", "")


class Median(Reverse):
    """A task of another package that says nothing of CSV."""

    name = "median"

    def csv_form(self):
        return Task.csv_form(self)


def renamed(model):
    TrainedModel.__init__(model, "reverse", controller_options=TINY)
    model.task_name, model.task = "median", Median()


# Output and trace.


def test_output_takes_the_place_of_standard_output_and_of_what_was_there(run, tmp_path):
    files = {"a.csv": "9,4\n2,7\n", "out.csv": "old\n"}
    assert run("sort", "a.csv --output out.csv", files) == (0, "", "")
    assert (tmp_path / "out.csv").read_text() == "2,7\n9,4\n"
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "out.csv"}
    expected = (tmp_path / "a.csv").stat().st_mode
    assert (tmp_path / "out.csv").stat().st_mode == expected


def test_output_may_be_a_second_name_of_the_input(run, tmp_path):
    (tmp_path / "a.csv").write_text("9,4\n2,7\n")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "a.csv")
    assert run("sort", "a.csv --output hard.csv") == (0, "", "")
    assert (tmp_path / "hard.csv").read_text() == "2,7\n9,4\n"


def test_output_may_be_the_input_or_a_link(run, tmp_path):
    (tmp_path / "link.csv").symlink_to("a.csv")
    assert run("sort", "a.csv --output link.csv", {"a.csv": "9,4\n2,7\n"}) == (0, "", "")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "a.csv").read_text() == "2,7\n9,4\n"


def test_output_that_is_no_file_is_written_to(run, tmp_path):
    assert run("sort", "a.csv --output /dev/null", {"a.csv": "9,4\n"}) == (0, "", "")
    assert Path("/dev/null").is_char_device()
    assert run("sort", "a.csv --output /dev/stdout", {"a.csv": "9,4\n"}) == (0, "9,4\n", "")
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    assert run("sort", "a.csv --output pipe", {"a.csv": "9,4\n"}) == (0, "", "")
    reader.join(timeout=30)
    assert got == ["9,4\n"]


def test_trace_is_the_models_and_changes_no_answer(run, tmp_path):
    content = "[7, 1000, 42]\n[5]\n"
    assert run("reverse", "a.jsonl --trace t.jsonl", {"a.jsonl": content}) == (0, "[42, 1000, 7]\n[5]\n", "")
    first, second = (json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines())
    assert (first["num_leaves"], first["answer"], len(first["steps"])) == (4, [42, 1000, 7], 4)
    assert (second["num_leaves"], second["answer"]) == (1, [5])
    assert all(len(step["branch_probabilities"]) == 2 for step in first["steps"])
    _, out, err = run("reverse", "a.jsonl --trace /dev/stderr", {"a.jsonl": "[5]\n"})
    assert out == "[5]\n"
    assert json.loads(err)["answer"] == [5]


DIFFERENT = "error: Expected different places for the answers and the trace, but got {}\n"


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ("--output x --trace x", "x and x"),
        ("--trace ./x --output x", "x and ./x"),
        ("--output new --trace folder/../new", "new and folder/../new"),
        ("--output x --trace link", "x and link"),
        ("--output hard --trace x", "hard and x"),
        ("--output dangling --trace nothing", "dangling and nothing"),
        ("--output folder/x --trace linked/x", "folder/x and linked/x"),
        ("--output pipe --trace pipe", "pipe and pipe"),
        ("--trace /dev/stdout", "standard output and /dev/stdout"),
        ("--trace -", "standard output and -"),
        ("--output - --trace /dev/fd/1", "standard output and /dev/fd/1"),
        ("--output /dev/stdout --trace /dev/stdout", "/dev/stdout and /dev/stdout"),
        ("--output /dev/stderr --trace /dev/stderr", "/dev/stderr and /dev/stderr"),
    ],
)
def test_answers_and_trace_in_one_place_are_refused_and_nothing_is_written(run, tmp_path, options, got):
    (tmp_path / "x").write_text("old\n")
    (tmp_path / "link").symlink_to("x")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "hard").hardlink_to(tmp_path / "x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked").symlink_to("folder")
    os.mkfifo(tmp_path / "pipe")
    before = {path.name for path in tmp_path.iterdir()}
    assert run("sort", f"a.csv {options}", {"a.csv": "9,4\n"}) == (2, "", DIFFERENT.format(got))
    assert {path.name for path in tmp_path.iterdir()} == before | {"a.csv"}
    assert (tmp_path / "x").read_text() == "old\n"


def test_answers_and_trace_in_two_places_are_both_kept(run, tmp_path):
    files = {"a.csv": "9,4\n2,7\n", "x": "old", "y": "old"}
    for options in (
        "--output x --trace y",
        "--trace x --output y",
        "--output x --trace /dev/null",
        "--output new --trace y",
    ):
        assert run("sort", f"a.csv {options}", files) == (0, "", "")
        words = options.split()
        places = dict(zip(words[::2], words[1::2], strict=True))
        assert (tmp_path / places["--output"]).read_text() == "2,7\n9,4\n"
        if places["--trace"] != "/dev/null":
            assert json.loads((tmp_path / places["--trace"]).read_text())["num_leaves"] == 2
    assert run("sort", "a.csv --output /dev/null --trace /dev/null", files) == (0, "", "")
    assert run("sort", "a.csv --output -", files) == (0, "2,7\n9,4\n", "")


@pytest.mark.parametrize("trace", ["a.csv", "./a.csv", "link", "hard"])
def test_a_trace_takes_no_place_of_what_is_read(run, tmp_path, trace):
    (tmp_path / "a.csv").write_text("9,4\n")
    (tmp_path / "link").symlink_to("a.csv")
    (tmp_path / "hard").hardlink_to(tmp_path / "a.csv")
    message = f"error: Expected a place for the trace that is no input, but got {trace}\n"
    assert run("sort", f"a.csv --trace {trace}") == (2, "", message)
    assert (tmp_path / "a.csv").read_text() == "9,4\n"


@pytest.mark.parametrize(
    ("redirections", "message"),
    [
        ("--trace x >> x", "Expected different places for the answers and the trace, but got standard output and x"),
        ("--trace x < x", "Expected a place for the trace that is no input, but got x"),
        ("--trace x - < x", "Expected a place for the trace that is no input, but got x"),
    ],
)
def test_redirections_count_as_the_files_that_they_are(saved, tmp_path, redirections, message):
    (tmp_path / "x").write_text("1,2\n")
    command = f"{sys.executable} -m lightning_ham.solve {saved} {redirections}"
    stdin = None if "<" in redirections else "1,2\n"
    done = subprocess.run(command, shell=True, cwd=tmp_path, input=stdin, stderr=-1, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
    assert (tmp_path / "x").read_text() == "1,2\n"


@pytest.mark.parametrize("option", ["--output", "--trace"])
@pytest.mark.parametrize("place", ["no/folder/out.csv", "."])
def test_place_that_cannot_be_written_is_told(run, option, place):
    status, out, err = run("sort", f"a.csv {option} {place}", {"a.csv": "1,2\n"})
    assert (status, out) == (2, "")
    assert err == f"error: Expected a file in a folder that is there, but got {place}\n"


# What nothing good is known of.


def test_what_is_longer_than_was_measured_is_told_once_on_standard_error(run, monkeypatch, tmp_path):
    monkeypatch.setattr(Oracle, "measured", {Lengths(1, 32): 0.0, Lengths(33, 128): 0.0})
    long = f"{2**64},1\n"
    warning = (
        "warning: Got up to 65 bits, but the model was evaluated on up to 63 bits only: nothing is known of its errors "
        "beyond.\n"
    )
    assert run("add", "a.csv", {"a.csv": "1,2\n"}) == (0, "3\n", "")
    assert run("add", "a.csv", {"a.csv": f"1,2\n{long}{long}"}) == (0, f"3\n{2**64 + 1}\n{2**64 + 1}\n", warning)
    assert run("add", "a.csv --trace t.jsonl --output o.csv", {"a.csv": long * 2}) == (0, "", warning)
    assert (tmp_path / "o.csv").read_text() == f"{2**64 + 1}\n" * 2


def test_priorities_closer_than_any_sample_are_told(run):
    close = {"a.csv": "0.5,1\n", "b.csv": "0.5000001,2\n"}
    status, out, err = run("merge", "a.csv b.csv", close)
    assert (status, out) == (0, "1\n2\n")
    assert err.startswith(
        "warning: Got an instance unlike all that the model was trained and evaluated on: two priorities"
    )
    assert err.count("\n") == 1


def test_as_a_process_it_is_one_line_also_where_warnings_are_errors():
    command = [sys.executable, "-W", "error::UserWarning", "-m", "lightning_ham.solve", "ham-add"]
    done = subprocess.run(command, input=f"{2**600},1\n3,6\n", capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "9"
    assert done.stderr == (
        "warning: Got up to 601 bits, but the model was evaluated on up to 511 bits only: nothing is known of its "
        "errors beyond.\n"
    )


# Wrong input.

PAIR = "Expected two integers key,value, but got "
WRONG = [
    # Lines that are not of the form.
    ("sort", "a.csv", {"a.csv": "1,2\n\n3,4\n"}, f"a.csv:2: {PAIR}an empty line"),
    ("sort", "a.csv", {"a.csv": "1,2\n\n"}, f"a.csv:2: {PAIR}an empty line"),
    ("sort", "a.csv", {"a.csv": "1,2\n   \n"}, f"a.csv:2: {PAIR}an empty line"),
    ("sort", "a.csv", {"a.csv": ""}, f"a.csv:1: {PAIR}the end of the input"),
    ("sort", "a.csv", {"a.csv": "key,value\n"}, f"a.csv:2: {PAIR}the end of the input"),
    ("sort", "a.csv", {"a.csv": "1,2\nkey,value\n"}, f"a.csv:2: {PAIR}'key,value'"),
    ("sort", "a.csv", {"a.csv": "value,key\n1,2\n"}, f"a.csv:1: {PAIR}'value,key'"),
    ("sort", "a.csv", {"a.csv": "1;2\n"}, f"a.csv:1: {PAIR}'1;2'"),
    ("sort", "a.csv", {"a.csv": "1,2,3\n"}, f"a.csv:1: {PAIR}'1,2,3'"),
    ("sort", "a.csv", {"a.csv": "1,2\n3\n"}, f"a.csv:2: {PAIR}'3'"),
    ("sort", "a.csv", {"a.csv": "1,\n"}, f"a.csv:1: {PAIR}'1,'"),
    ("sort", "a.csv", {"a.csv": "1,2.0\n"}, f"a.csv:1: {PAIR}'1,2.0'"),
    ("sort", "a.csv", {"a.csv": "1_0,2\n"}, f"a.csv:1: {PAIR}'1_0,2'"),
    ("sort", "a.csv", {"a.csv": '"1,2\n'}, f"a.csv:1: {PAIR}'\"1,2'"),
    ("sort", "a.csv", {"a.csv": '"1"2,3\n'}, f"a.csv:1: {PAIR}'\"1\"2,3'"),
    ("sort", "a.csv", {"a.csv": "1,2\r\nx\r\n"}, f"a.csv:2: {PAIR}'x'"),
    ("sort", "a.csv", {"a.csv": "x" * 1000}, f"a.csv:1: {PAIR}'{'x' * 57}...'"),
    ("sort", "a.csv", {"a.csv": b"1,2\n\xff,3\n"}, "a.csv:2: Expected text in UTF-8, but got other bytes"),
    ("sort", "-", {}, f"<stdin>:1: {PAIR}the end of the input"),
    ("reverse", "a.csv", {"a.csv": "1\n2,3\n"}, "a.csv:2: Expected one integer, but got '2,3'"),
    ("add", "a.csv", {"a.csv": "1,2\n3+4\n"}, "a.csv:2: Expected two integers a,b, but got '3+4'"),
    ("stack", "a.csv", {"a.csv": "push,1\npeek\n"}, "a.csv:2: Expected push,value or pop, but got 'peek'"),
    ("stack", "a.csv", {"a.csv": "push,1,2\n"}, "a.csv:1: Expected push,value or pop, but got 'push,1,2'"),
    ("stack", "a.csv", {"a.csv": "pop,1\n"}, "a.csv:1: Expected push,value or pop, but got 'pop,1'"),
    ("stack", "a.csv", {"a.csv": "push,x\n"}, "a.csv:1: Expected push,value or pop, but got 'push,x'"),
    ("queue", "a.csv", {"a.csv": "\n"}, "a.csv:1: Expected push,value or pop, but got an empty line"),
    ("queue", "a.csv", {"a.csv": ""}, "a.csv:1: Expected push,value or pop, but got the end of the input"),
    (
        "priority_queue",
        "a.csv",
        {"a.csv": "push,1\n"},
        "a.csv:1: Expected push,priority,value or pop, but got 'push,1'",
    ),
    (
        "stack",
        "a.csv",
        {"a.csv": "operation,value\npush,1\npop\npop\n"},
        "a.csv:4: Expected something to pop, but got an empty stack (operation 3)",
    ),
    (
        "merge",
        "a.csv b.csv",
        {"a.csv": "0.1,2\n", "b.csv": "0.2,3\nnan,4\n"},
        "b.csv:2: Expected a number and an integer priority,value, but got 'nan,4'",
    ),
    ("sort", "a.jsonl", {"a.jsonl": "[[1,2]]\n[[1,2\n"}, "a.jsonl:2: Expected an instance as JSON, but got '[[1,2'"),
    ("sort", "a.jsonl", {"a.jsonl": "[[1,2]]\n\n"}, "a.jsonl:2: Expected an instance as JSON, but got an empty line"),
    ("sort", "a.jsonl", {"a.jsonl": ""}, "a.jsonl:1: Expected an instance as JSON, but got the end of the input"),
    ("sort", "a.jsonl", {"a.jsonl": "[" * 99_999}, f"a.jsonl:1: Expected an instance as JSON, but got '{'[' * 57}...'"),
    # Values that the task cannot take, each at its line, with and without a header above.
    ("reverse", "a.csv", {"a.csv": "1\n1024\n"}, "a.csv:2: Expected numbers from 0 to 1023, but got 1024 (number 2)"),
    ("reverse", "a.csv", {"a.csv": "value\n-1\n"}, "a.csv:2: Expected numbers from 0 to 1023, but got -1 (number 1)"),
    (
        "sort",
        "a.csv",
        {"a.csv": "key,value\n1,2\n3,32\n"},
        "a.csv:3: Expected values from 0 to 31, but got 32 (pair 2)",
    ),
    ("add", "a.csv", {"a.csv": "1,2\n-3,4\n"}, "a.csv:2: Expected numbers of at least 0, but got -3 (first number)"),
    (
        "search",
        "a.csv --query 1",
        {"a.csv": "key,value\n3,1\n2,1\n"},
        "a.csv:3: Expected pairs sorted by key, but got key 2 after 3 (pair 2)",
    ),
    (
        "search",
        "a.csv --query 3 --query 7",
        {"a.csv": "3,1\n"},
        "--query 7: Expected a query that is one of the keys, but got 7",
    ),
    (
        "search",
        "a.csv --query 99",
        {"a.csv": "3,1\n"},
        "--query 99: Expected keys from 0 to 31, but got 99 (query)",
    ),
    (
        "merge",
        "a.csv b.csv",
        {"a.csv": "0.1,2\n", "b.csv": "priority,value\n0.3,1\n0.2,1\n"},
        "b.csv:3: Expected priorities that ascend, but got 0.2 after 0.3 (pair 2 of the second sequence)",
    ),
    (
        "merge",
        "a.csv b.csv",
        {"a.csv": "0.1,2\n1.5,2\n", "b.csv": ""},
        "a.csv:2: Expected priorities above 0 and up to 1, but got 1.5 (pair 2 of the first sequence)",
    ),
    (
        "merge",
        "a.csv b.csv",
        {"a.csv": "0.1,2\n0.5,2\n", "b.csv": "0.5,2\n"},
        "b.csv:1: Expected priorities that differ as 32-bit numbers, but got 0.5 twice "
        "(pair 2 of the first sequence, pair 1 of the second sequence)",
    ),
    (
        "merge",
        "a.csv b.csv",
        {"a.csv": "", "b.csv": ""},
        "a.csv: Expected at least one pair, but got two empty sequences",
    ),
    (
        "sort",
        "a.jsonl",
        {"a.jsonl": "[[1,2]]\n[[1,2],[3,true]]\n"},
        "a.jsonl:2: Expected values that are integers, but got bool (pair 2)",
    ),
    ("sort", "a.jsonl", {"a.jsonl": '{"a": 1}\n'}, "a.jsonl:1: Expected a list of pairs, but got dict"),
    (
        "search",
        "a.jsonl",
        {"a.jsonl": "[[[3,1]],4]\n"},
        "a.jsonl:1: Expected a query that is one of the keys, but got 4",
    ),
    # Files.
    ("sort", "no.csv", {}, "no.csv: Expected a file to read, but got: No such file or directory"),
    ("sort", ".", {}, ".: Expected a file to read, but got: Is a directory"),
    ("sort", "a.csv b.csv", {}, "error: Expected one csv file for sort, but got 2: a.csv b.csv"),
    ("merge", "a.csv", {}, "error: Expected two CSV files for merge, but got 1: a.csv"),
    ("merge", "a.csv b.csv c.csv", {}, "error: Expected two CSV files for merge, but got 3: a.csv b.csv c.csv"),
    ("merge", "- -", {}, "error: Expected standard input (-) for one of the files at most, but got it twice"),
    ("merge", "a.jsonl b.jsonl", {}, "error: Expected one jsonl file for merge, but got 2: a.jsonl b.jsonl"),
    # Options.
    ("search", "a.csv", {}, "error: Expected --query KEY, what to search for in the CSV file, but got none"),
    ("sort", "a.csv --query 3", {}, "error: Expected --query for search in CSV only, but got it for sort in csv"),
    (
        "search",
        "a.jsonl --query 3",
        {},
        "error: Expected --query for search in CSV only, but got it for search in jsonl",
    ),
    ("sort", "a.csv --formt csv", {}, "error: Unknown argument '--formt'; did you mean --format?"),
    ("sort", "a.csv --format tsv", {}, "error: argument --format: invalid choice: 'tsv' (choose from 'csv', 'jsonl')"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "argv", "files", "message"), WRONG)
def test_wrong_input_is_one_line_and_nothing_is_written(run, tmp_path, task, argv, files, message):
    status, out, err = run(task, f"{argv} --output out --trace trace", {"out": "old", **files})
    assert err == f"{message}\n"
    assert (status, out) == (2, "")
    assert (tmp_path / "out").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"out", *files}


def test_missing_model_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        solve.main(["ham-srot", "a.csv"])
    assert raised.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: Unknown model 'ham-srot';.*\n", err)


def test_failed_write_leaves_what_was_there(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    status, out, err = run("sort", "a.csv --output out", {"a.csv": "1,2\n", "out": "old"})
    assert (status, out, err) == (2, "", "error: [Errno 28] No space left on device\n")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.csv": "1,2\n", "out": "old"}


def test_a_closed_pipe_is_no_wrong_input(run, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    for argv in ("a.csv", "a.csv --output /dev/stdout"):
        monkeypatch.setattr(sys, "stdout", Closed())
        with pytest.raises(BrokenPipeError):
            run("sort", argv, {"a.csv": "1,2\n"})


# As a process.


def test_standard_input_to_standard_output(saved):
    command = [sys.executable, "-m", "lightning_ham.solve", saved]
    result = subprocess.run(command, input="a,b\n0,0\n6,3\n", check=True, capture_output=True, text=True)
    expected = TrainedModel.from_folder(saved).solve([(0, 0), (6, 3)])
    assert result.stdout == "".join(f"{answer}\n" for answer in expected)
    assert result.stderr == ""


def test_a_reader_that_has_seen_enough_ends_it_without_a_sound(saved):
    command = f"'{sys.executable}' -m lightning_ham.solve '{saved}' | head -n 0; echo ${{PIPESTATUS[@]}}"
    result = subprocess.run(["bash", "-c", command], input="1,2\n", check=True, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("0 0\n", "")


def test_wrong_input_to_the_command(saved):
    command = [sys.executable, "-m", "lightning_ham.solve", saved]
    result = subprocess.run(command, input="1,2\nx\n", check=False, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "<stdin>:2: Expected two integers a,b, but got 'x'\n"


def test_the_limit_of_digits_is_lifted_for_instances_only(tmp_path, monkeypatch, capsys):
    """A model's files come from outside; a number of a million digits in them would take long."""
    model = Oracle("add", controller_options=TINY)
    limits = []

    def load(name):
        limits.append(sys.get_int_max_str_digits())
        return model

    monkeypatch.setattr(solve, "from_pretrained", load)
    number = "1" * (sys.get_int_max_str_digits() + 1)
    (tmp_path / "numbers.csv").write_text(f"{number},{number}\n")
    before = sys.get_int_max_str_digits()
    assert solve.main(["MODEL", str(tmp_path / "numbers.csv")]) == 0
    assert limits == [before]
    assert len(capsys.readouterr().out) > 1


def test_what_is_wrong_with_long_input_is_a_short_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(solve, "from_pretrained", lambda name: TrainedModel("sort", controller_options=TINY))
    (tmp_path / "pairs.csv").write_text("9" * 100_000 + ",1\n")
    (tmp_path / "pairs.jsonl").write_text(f'[["\\u001b[31m{"x" * 100_000}", 1]]\n[[{"9" * 5000}, 1]]\n')
    for arguments in (["pairs.csv"], ["pairs.jsonl"], ["x" * 100_000], ["\x1b[31mnone.csv"], ["a\nb"]):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            solve.main(["MODEL", *arguments])
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.endswith("\n")
        assert err[:-1].isprintable()
        assert len(err) < 700
