"""Imports go down only, third-party packages stay on their floor, and private names stay private."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import lightning_ham

PACKAGE = "lightning_ham"


class Floor(NamedTuple):
    """What the modules of one floor may import beside the standard library and their own floor."""

    floors: frozenset[str]
    third_party: frozenset[str]


def _floor(floors: str, third_party: str) -> Floor:
    return Floor(frozenset(floors.split()), frozenset(third_party.split()))


FLOORS = {
    "foreign": _floor("", ""),
    "arguments": _floor("foreign", ""),
    "registry": _floor("foreign", ""),
    "kernels": _floor("", "llvmlite numba numpy"),
    "memory": _floor("foreign arguments registry kernels", "torch"),
    "controllers": _floor("foreign arguments registry kernels memory", "torch"),
    "tasks": _floor("foreign arguments registry", "torch"),
    "models": _floor("foreign arguments registry memory controllers tasks", "torch"),
    "training": _floor(
        "foreign arguments registry memory controllers tasks models hub", "torch pytorch_lightning torchmetrics"
    ),
    "hub": _floor(
        "foreign arguments registry memory controllers tasks models training",
        "torch huggingface_hub httpx2 safetensors jinja2 yaml",
    ),
    "runs": _floor("foreign controllers training hub", "torch pytorch_lightning filelock yaml"),
    "reproduction": _floor("tasks models training hub recipe runs learning_curve", "torch yaml"),
}
# The modules beside the floors' packages: a command each, and what the commands share.
TOP = _floor(
    "foreign arguments registry memory controllers tasks models training hub runs",
    "torch pytorch_lightning torchmetrics huggingface_hub jsonargparse matplotlib PIL rich wandb yaml",
)
LAZY_IMPORT = re.compile(rf"({PACKAGE}(?:\.\w+)+):(\w+)")


class Import(NamedTuple):
    line: int
    module: str
    name: str | None = None
    """The name taken from the module, if any."""


def imports(tree: ast.Module, package: str) -> Iterator[Import]:
    """Every import anywhere in a module, and every "module:attribute" string, which is a lazy import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -node.level + 1 or None] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(node.lineno, module, alias.name)
        elif isinstance(node, ast.Constant) and (match := LAZY_IMPORT.fullmatch(str(node.value))):
            yield Import(node.lineno, match[1], match[2])


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def complaint(importer: str, found: Import) -> str | None:
    """What is wrong with an import on the floor `importer`, if anything."""
    root, *below = found.module.split(".")
    path = [*below, *([found.name] if found.name else [])]
    private = next((part for part in [root, *path] if is_private(part)), None)
    if private:
        return f"imports the private name {private}"
    allowed = FLOORS.get(importer, TOP)
    if root == PACKAGE:
        floor = path[0] if path else PACKAGE
        if floor in (importer, "__version__") or floor in allowed.floors:
            return None
        # Modules of the top may import each other, but not the names that the package offers to its users.
        if importer not in FLOORS and floor not in lightning_ham.__all__ and floor != PACKAGE:
            return None
        return f"imports {floor}, which is not below {importer}"
    if root in sys.stdlib_module_names or root in allowed.third_party:
        return None
    return f"imports {root}, which is not for {importer}"


def violations(root: Path) -> list[str]:
    """One line for every rule broken in the package whose folder is `root`."""
    found = []
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root)
        # What a package does as a command belongs to the top, whatever its floor.
        floor = path.stem if path.name == "__main__.py" else path.parts[0].removesuffix(".py")
        if path.name != "__main__.py" and len(path.parts) > 1 and floor not in FLOORS:
            found.append(f"{path}: {floor} is on no floor; give it one in FLOORS")
        if "utils" in (file.stem, file.parent.name):
            found.append(f"{path}: is named utils; name it after what it does")
        package = ".".join([PACKAGE, *path.parent.parts])
        # The package itself names what it offers to its users, wherever that lives.
        if path == Path("__init__.py"):
            continue
        found.extend(
            f"{path}:{item.line}: {wrong}"
            for item in imports(ast.parse(file.read_text(encoding="utf-8")), package)
            if (wrong := complaint(floor, item))
        )
    return found


def test_imports_go_down_only():
    root = Path(lightning_ham.__file__).parent
    read = {file.relative_to(root).parts[0].removesuffix(".py") for file in root.rglob("*.py")}
    assert read >= FLOORS.keys(), "a floor of the table is missing from the package"
    assert violations(root) == []


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        (
            "memory/tree.py",
            "import lightning_ham.controllers",
            "imports controllers, which is not below memory",
        ),
        ("memory/tree.py", "from lightning_ham import hub", "imports hub, which is not below memory"),
        ("memory/tree.py", "from .. import training", "imports training, which is not below memory"),
        ("memory/tree.py", "from ..hub.card import x", "imports hub, which is not below memory"),
        ("memory/tree.py", "def f():\n    import wandb", "imports wandb, which is not for memory"),
        (
            "tasks/task.py",
            "from lightning_ham.memory import Tree",
            "imports memory, which is not below tasks",
        ),
        ("controllers/x.py", "import lightning_ham.tasks.task as t", "imports tasks, which is not below"),
        ("controllers/x.py", "A = 'lightning_ham.models.m:M'", "imports models, which is not below"),
        ("models/x.py", "import pytorch_lightning", "imports pytorch_lightning, which is not for models"),
        ("training/x.py", "from jinja2 import Template", "imports jinja2, which is not for training"),
        ("training/x.py", "import lightning_ham", "imports lightning_ham, which is not below training"),
        ("hub/x.py", "import lightning_ham.recipe", "imports recipe, which is not below hub"),
        ("hub/x.py", "from lightning_ham import HAMModule", "imports HAMModule, which is not below hub"),
        ("hub/x.py", "import wandb", "imports wandb, which is not for hub"),
        ("registry.py", "import torch", "imports torch, which is not for registry"),
        ("fit.py", "from lightning_ham import HAMModule", "imports HAMModule, which is not below fit"),
        ("fit.py", "import requests", "imports requests, which is not for fit"),
        ("fit.py", "from lightning_ham.recipe import _find", "imports the private name _find"),
        ("fit.py", "import torch._dynamo", "imports the private name _dynamo"),
        ("viz/plot.py", "", "viz is on no floor"),
        ("memory/utils.py", "", "is named utils"),
    ],
)
def test_planted_violation_is_found(tmp_path, path, source, expected):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(source)
    (found,) = violations(tmp_path)
    assert found.startswith(path)
    assert expected in found


def test_what_is_allowed_passes(tmp_path):
    (tmp_path / "__init__.py").write_text("from lightning_ham.hub import from_pretrained")
    (tmp_path / "fit.py").write_text("import wandb\nfrom lightning_ham import hub, recipe\nimport lightning_ham.recipe")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sequences.py").write_text(
        "import heapq\nimport torch.nn.functional as F\n"
        "from . import episode\nfrom ..registry import Registry\nfrom lightning_ham import __version__\n"
        "from lightning_ham.tasks.task import Task\nGROUP = 'lightning_ham.tasks'\n"
        "TASKS = {'sort': 'lightning_ham.tasks.sequences:Sort'}"
    )
    assert violations(tmp_path) == []
