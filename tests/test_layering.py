"""Imports go down only, third-party packages stay on their floor, and private names stay private."""

import ast
import re
import sys
from collections.abc import Collection, Iterator, Mapping
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
    "registry": _floor("foreign", "packaging"),
    "whole_file": _floor("", ""),
    "console": _floor("", ""),
    "notebook": _floor("", ""),
    "memory": _floor("foreign arguments registry", "torch"),
    "engines": _floor("foreign arguments registry whole_file memory", "torch numpy llvmlite numba"),
    "controllers": _floor("foreign arguments registry memory engines", "torch"),
    "tasks": _floor("foreign arguments registry", "torch"),
    "models": _floor("foreign arguments registry memory engines controllers tasks", "torch"),
    "certification": _floor("foreign arguments whole_file memory engines controllers tasks models", "torch numpy"),
    "evaluation": _floor("foreign arguments registry memory engines controllers tasks models", "torch torchmetrics"),
    "training": _floor(
        "foreign arguments registry memory controllers tasks models evaluation pictures hub", "torch pytorch_lightning"
    ),
    "hub": _floor(
        "foreign arguments registry memory controllers tasks models evaluation pictures certification",
        "torch huggingface_hub httpx2 safetensors jinja2 yaml",
    ),
    "exporting": _floor("foreign registry whole_file memory engines controllers tasks models hub", "torch numpy"),
    "pictures": _floor(
        "foreign arguments registry engines controllers tasks models evaluation output_files",
        "torch matplotlib PIL",
    ),
    "runs": _floor(
        "foreign arguments console notebook whole_file memory engines controllers tasks models certification "
        "evaluation training hub pictures",
        "PIL torch pytorch_lightning IPython filelock jsonargparse pydantic rich wandb yaml",
    ),
    "reproduction": _floor("tasks models evaluation training hub pictures runs", "torch yaml"),
    "page": _floor("foreign whole_file tasks models hub exporting", ""),
    "sweeps": _floor("foreign output_files evaluation hub pictures runs reproduction tasks", "optuna sqlalchemy yaml"),
    "output_files": _floor("whole_file", ""),
    "instance_files": _floor("foreign models tasks", "torch"),
    "command_line": _floor("foreign console", ""),
}
# The modules beside the floors: a command each, which knows of the others nothing but that they are there.
TOP = _floor(" ".join(FLOORS), "torch rich shtab")
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
        return f"imports {floor}, which is not below {importer}"
    if root in sys.stdlib_module_names or root in allowed.third_party:
        return None
    return f"imports {root}, which is not for {importer}"


def circle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """The modules of an import circle, from one of them back to it; empty if there is none."""
    done: set[str] = set()

    def search(path: list[str]) -> list[str]:
        for module in graph[path[-1]]:
            if module in path:
                return [*path[path.index(module) :], module]
            if module not in done and (found := search([*path, module])):
                return found
        done.add(path[-1])
        return []

    return next((found for module in graph if (found := search([module]))), [])


def when_imported(tree: ast.Module) -> ast.Module:
    """What a module does when it is imported: all but the bodies of its functions, and what only type checkers see."""

    class WhenImported(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

        def visit_Constant(self, node: ast.Constant) -> None:  # which might name what is imported lazily
            return None

    return WhenImported().visit(tree)


def import_graph(root: Path) -> dict[str, list[str]]:
    """For each module of the package whose folder is `root`, which others it imports when it is imported."""
    files = {".".join([PACKAGE, *file.relative_to(root).with_suffix("").parts]): file for file in root.rglob("*.py")}
    files = {name.removesuffix(".__init__"): file for name, file in sorted(files.items())}
    graph = {}
    for name, file in files.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        found = imports(when_imported(ast.parse(file.read_text(encoding="utf-8"))), package)
        modules = [inner if (inner := f"{item.module}.{item.name}") in files else item.module for item in found]
        graph[name] = [module for module in dict.fromkeys(modules) if module in files and module != PACKAGE]
    return graph


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
    if around := circle(import_graph(root)):
        found.append(f"{' imports '.join(around)}: a circle")
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
        ("hub/x.py", "import lightning_ham.runs.train", "imports runs, which is not below hub"),
        ("hub/x.py", "from lightning_ham import HAMModule", "imports HAMModule, which is not below hub"),
        ("hub/x.py", "import wandb", "imports wandb, which is not for hub"),
        ("registry.py", "import torch", "imports torch, which is not for registry"),
        ("fit.py", "from lightning_ham import HAMModule", "imports HAMModule, which is not below fit"),
        ("fit.py", "import requests", "imports requests, which is not for fit"),
        ("fit.py", "from lightning_ham.runs.train import _claim", "imports the private name _claim"),
        ("fit.py", "from lightning_ham.push import main", "imports push, which is not below fit"),
        ("fit.py", "from lightning_ham import draw", "imports draw, which is not below fit"),
        ("fit.py", "import wandb", "imports wandb, which is not for fit"),
        ("runs/x.py", "from lightning_ham import command_line", "imports command_line, which is not below runs"),
        ("models/__main__.py", "import lightning_ham.solve", "imports solve, which is not below __main__"),
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
    (tmp_path / "fit.py").write_text("import rich\nfrom lightning_ham import hub\nimport lightning_ham.command_line")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sequences.py").write_text(
        "import heapq\nimport torch.nn.functional as F\n"
        "from . import episode\nfrom ..registry import Registry\nfrom lightning_ham import __version__\n"
        "from lightning_ham.tasks.task import Task\nGROUP = 'lightning_ham.tasks'\n"
        "TASKS = {'sort': 'lightning_ham.tasks.sequences:Sort'}"
    )
    assert violations(tmp_path) == []


def write_modules(root: Path, modules: Mapping[str, str]) -> None:
    for name, source in modules.items():
        file = root / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)


@pytest.mark.parametrize(
    ("modules", "around"),
    [
        (
            {"memory/a": "from lightning_ham.memory.b import x", "memory/b": "import lightning_ham.memory.a"},
            "memory.a memory.b memory.a",
        ),
        (
            {"hub/a": "from . import b", "hub/b": "from .c import y", "hub/c": "from lightning_ham.hub import a"},
            "hub.a hub.b hub.c hub.a",
        ),
        (
            {
                "hub/__init__": "from lightning_ham.hub.a import x",
                "hub/a": "if True:\n    from lightning_ham.hub import x",
            },
            "hub hub.a hub",
        ),
        ({"hub/a": "class A:\n    from lightning_ham.hub import a"}, "hub.a hub.a"),
    ],
)
def test_planted_circle_is_found(tmp_path, modules, around):
    write_modules(tmp_path, modules)
    (found,) = violations(tmp_path)
    assert found == f"{' imports '.join(f'{PACKAGE}.{name}' for name in around.split())}: a circle"


def test_what_is_imported_later_or_for_type_checkers_only_makes_no_circle(tmp_path):
    write_modules(
        tmp_path,
        {
            "memory/a": "from lightning_ham.memory import b, c, d",
            "memory/b": "def f():\n    from lightning_ham.memory import a",
            "memory/c": "if TYPE_CHECKING:\n    from lightning_ham.memory import a",
            "memory/d": "LATER = 'lightning_ham.memory.a:f'",
        },
    )
    assert violations(tmp_path) == []
