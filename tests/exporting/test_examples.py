"""The examples that run exported models: with NumPy and ONNX Runtime alone, where torch cannot be imported."""

import ast
import heapq
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHOUT_TORCH = """
import sys
sys.modules.update(torch=None, lightning_ham=None)
sys.path.insert(0, sys.argv[1])
"""
QUEUE = (
    WITHOUT_TORCH
    + """
import json
from onnx_priority_queue import PriorityQueue
queue = PriorityQueue(sys.argv[2], capacity=8)
print(json.dumps([queue.pop() if not step else queue.push(*step) for step in json.load(sys.stdin)]))
for wrong in (lambda: [queue.push(1, 1) for _ in range(9)], lambda: [queue.pop() for _ in range(9)]):
    try:
        wrong()
    except (IndexError, OverflowError) as error:
        print(error)
"""
)


def python(script: str, *arguments: object, **options: object) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def steps(count: int, capacity: int) -> list[list[int]]:
    """Random pushes, [priority, value], and pops, []; the queue is empty in the end."""
    draw, size, found = random.Random(5), 0, []
    for _ in range(count):
        pushes = size == 0 or (size < capacity and draw.random() < 0.6)
        found.append([draw.randrange(32), draw.randrange(32)] if pushes else [])
        size += 1 if pushes else -1
    return found + [[]] * size


def test_the_priority_queue_pops_like_a_heap(exported):
    operations = steps(120, 8)
    assert sum(map(bool, operations)) > 3 * 16  # so its elements move to blank trees
    heap: list[list[int]] = []
    expected = [heapq.heappush(heap, step) if step else heapq.heappop(heap)[1] for step in operations]
    answers, *errors = python(
        QUEUE, EXAMPLES, exported("ham-priority-queue"), input=json.dumps(operations)
    ).splitlines()
    assert json.loads(answers) == expected
    assert errors == ["Expected fewer than 8 elements before a push", "Expected an element before a pop"]


def test_the_priority_queue_runs_as_its_docstring_says(exported):
    script = WITHOUT_TORCH + "import runpy; sys.argv[:2] = []; sys.argv.insert(0, '')\n"
    script += f"runpy.run_path({str(EXAMPLES / 'onnx_priority_queue.py')!r}, run_name='__main__')"
    assert python(script, EXAMPLES, exported("ham-priority-queue")) == "7 4 1\n"


@pytest.mark.parametrize("name", ["onnx_priority_queue.py", "onnx_episodes.py"])
def test_an_example_needs_numpy_and_onnxruntime_only(name):
    tree = ast.parse((EXAMPLES / name).read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules - sys.stdlib_module_names == {"numpy", "onnxruntime"}


def test_the_priority_queue_is_sixty_lines():
    assert len((EXAMPLES / "onnx_priority_queue.py").read_text().splitlines()) <= 60
