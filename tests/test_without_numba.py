"""Without Numba: everything works in plain PyTorch, which is told once; the engine of compiled loops refuses."""

import json
import os
import subprocess
import sys

import pytest
import yaml

ABSENT = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None  # importing them fails, and they are not found
"""
RUN = """
import contextlib, json, sys
from lightning_ham import draw, evaluate, fit, from_pretrained, solve
from lightning_ham.models import __main__ as models

statuses = [
    fit.main(["tiny.yaml"]),
    fit.main(["tiny.yaml", "--run_dir", "compiled", "--model.engine", "fused"]),
    evaluate.main(["runs/tiny", "--lengths", "1-4", "--episodes", "20"]),
    solve.main(["ham-sort", "pairs.jsonl", "--output", "answers.jsonl"]),
    draw.main(["ham-sort", "-o", "picture.svg"]),
    models.main([]),
]
stack = from_pretrained("ham-stack").open(capacity=8)
stack.push(5)
stack.push(7)
popped = stack.pop()
json.dump({"statuses": statuses, "popped": popped}, open("done.json", "w"))
"""


@pytest.mark.slow
def test_all_works_it_is_told_once_and_compiled_loops_refuse(tmp_path, environment, tiny_recipe):
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    recipe = yaml.safe_load(tiny_recipe.read_text()) | {"threads": 1}
    recipe["trainer"] |= {"max_epochs": 1}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "pairs.jsonl").write_text("[[2, 1], [0, 3], [2, 0]]\n")
    search = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, env=environment | search, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "done.json").read_text()) == {"statuses": [0, 2, 0, 0, 0, 0], "popped": 7}
    assert (tmp_path / "answers.jsonl").read_text() == "[[0, 3], [2, 1], [2, 0]]\n"
    assert (tmp_path / "picture.svg").stat().st_size > 1000
    told = [line for line in done.stderr.splitlines() if "pip install numba" in line]
    assert [line.partition(":")[0] for line in told] == ["Numba is not installed", "error"]
    assert told[1] == (
        "error: The engine 'fused' cannot run this: it needs Numba: pip install numba. Choose the engine 'auto'."
    )
