"""The independent checker accepts certificates that hold, and catches every alteration."""

import ast
import base64
import hashlib
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lightning_ham import from_pretrained
from lightning_ham.certification import checker
from lightning_ham.hub.places import BUNDLED

PATH = Path(checker.__file__)
NAMES = ["ham-stack", "ham-queue"]


def files(name):
    folder = BUNDLED / name
    return json.loads((folder / "certificate.json").read_bytes()), (folder / "model.safetensors").read_bytes()


def table(entry):
    return checker.read_table(entry).copy()


def packed(rows):
    data = zlib.compress(rows.astype("<i2").tobytes())
    return {"shape": list(rows.shape), "int16, deflated": base64.b64encode(data).decode()}


def test_it_is_one_short_file_that_needs_numpy_only():
    source = PATH.read_text()
    assert len(source.splitlines()) < 300
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.partition(".")[0])
    assert modules - set(sys.stdlib_module_names) == {"numpy"}


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_alone_and_finds_the_same_margins(name, tmp_path):
    folder = BUNDLED / name
    alone = tmp_path / "checker.py"
    alone.write_bytes(PATH.read_bytes())
    command = [sys.executable, "-I", alone, folder / "certificate.json", folder / "model.safetensors"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    certificate = from_pretrained(name).certificate
    margins = certificate.rounding_margin, certificate.branch_margin, certificate.output_margin
    words = "rounding {:.2g}, branch {:.2g}, output {:.2g}".format(*margins)
    task = certificate.task
    expected = f"holds: {task} for every capacity, {certificate.pairs:,} pairs, least margins: {words}\n"
    assert finished.stdout == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_its_tables_is_needed(name):
    certificate, content = files(name)
    generator = np.random.default_rng(0)
    for level in range(-1, len(certificate["levels"]) - 1):  # the last repeats an earlier one
        rows = table(certificate["leaves"] if level < 0 else certificate["levels"][level])
        for row in generator.choice(len(rows), 3, replace=False):
            without = packed(np.delete(rows, row, axis=0))
            levels = list(certificate["levels"])
            altered = certificate | ({"leaves": without} if level < 0 else {})
            if level >= 0:
                levels[level] = without
            with pytest.raises(checker.Refused):
                checker.check(altered | {"levels": levels}, content)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", [0, 5, -3, -2, -1], ids=["value", "another value", "meaning", "push", "pop"])
def test_an_altered_value_meaning_or_branch_is_caught(name, column):
    certificate, content = files(name)
    for level in range(len(certificate["levels"]) - 1):
        rows = table(certificate["levels"][level])
        old = rows[-1, column]
        for new in (old + 1, old - 1, -old):
            if new == old:
                continue
            rows[-1, column] = new
            levels = [*certificate["levels"]]
            levels[level] = packed(rows)
            with pytest.raises(checker.Refused):
                checker.check(certificate | {"levels": levels}, content)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", [0, -2, -1], ids=["value", "meaning", "last push"])
def test_an_altered_leaf_is_caught(name, column):
    certificate, content = files(name)
    rows = table(certificate["leaves"])
    for row in (0, 1, len(rows) - 1):
        altered = rows.copy()
        altered[row, column] += 1
        with pytest.raises(checker.Refused):
            checker.check(certificate | {"leaves": packed(altered)}, content)


@pytest.mark.parametrize("name", NAMES)
def test_altered_weights_are_caught_even_with_their_own_hash(name):
    certificate, content = files(name)
    weights = safetensors.numpy.load(content)
    generator = np.random.default_rng(0)
    for key, array in sorted(weights.items()):
        altered = array + 30 * generator.standard_normal(array.shape, np.float32)
        changed = safetensors.numpy.save(weights | {key: altered})
        with pytest.raises(checker.Refused, match="other weights"):
            checker.check(certificate, changed)
        own = certificate | {"weights_sha256": hashlib.sha256(changed).hexdigest()}
        with pytest.raises(checker.Refused):
            checker.check(own, changed)


def test_a_certificate_of_another_task_is_caught():
    certificate, content = files("ham-stack")
    for task in ("queue", "priority_queue", "tree"):
        with pytest.raises(checker.Refused):
            checker.check(certificate | {"task": task}, content)


def test_levels_that_do_not_repeat_are_caught():
    certificate, content = files("ham-queue")
    with pytest.raises(checker.Refused, match="repeat"):
        checker.check(certificate | {"levels": certificate["levels"][:2]}, content)
    for repeats in (0, len(certificate["levels"]), 1):
        with pytest.raises(checker.Refused, match="repeat"):
            checker.check(certificate | {"repeats": repeats}, content)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"format": 2}, "format"),
        ({"grid": 0.5}, "."),
        ({"grid": 0.3}, "power of two"),
        ({"grid": -1.0}, "power of two"),
    ],
)
def test_other_fields_are_checked(data, match):
    certificate, content = files("ham-queue")
    with pytest.raises(checker.Refused, match=match):
        checker.check(certificate | data, content)
