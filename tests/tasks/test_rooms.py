"""What is particular to a task stands in its own module: nobody else knows its name, and a plugin's task is no less."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightning_ham
from lightning_ham import draw, solve
from lightning_ham.hub import TrainedModel
from lightning_ham.tasks import built_in_tasks, find_task, get_task, task_names

ROOT = Path(lightning_ham.__file__).parent
ALLOWED = {
    ("certification/checker.py", "priority_queue"),  # it trusts nothing of the package
    ("certification/checker.py", "queue"),
    ("certification/checker.py", "stack"),
    ("engines/single.py", "search"),  # SEARCH, a part of the memory
    ("exporting/parts.py", "search"),
    ("runs/recipe/schema.py", "search"),  # any task, to ask for bounds
    ("runs/recipe/file.py", "merge"),  # YAML's own word for a kind of key
}


def strings(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        if isinstance(node, ast.ImportFrom | ast.Import):
            yield from (alias.name for alias in node.names if isinstance(node, ast.Import))
            yield getattr(node, "module", None) or ""


def names_of_tasks(root: Path) -> set[tuple[str, str]]:
    """The module and the name, wherever one outside of tasks/ knows a task by its name or its module."""
    tasks = built_in_tasks()
    known = {task.name for task in tasks} | {type(task).__module__ for task in tasks}
    return {
        (file.relative_to(root).as_posix(), string)
        for file in root.rglob("*.py")
        if file.relative_to(root).parts[0] != "tasks"
        for string in strings(file)
        if string in known
    }


def test_nobody_outside_of_the_tasks_knows_one_by_name() -> None:
    assert names_of_tasks(ROOT) == ALLOWED


def test_a_planted_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sort.py").write_text("name = 'sort'")
    (tmp_path / "solve.py").write_text("two = name == 'merge'\nfrom lightning_ham.tasks.add import Add\n")
    assert names_of_tasks(tmp_path) == {("solve.py", "merge"), ("solve.py", "lightning_ham.tasks.add")}


@pytest.mark.parametrize("task", built_in_tasks(), ids=lambda task: task.name)
def test_every_task_tells_its_forms_its_labels_and_its_bar(task) -> None:
    assert type(task).__module__.startswith("lightning_ham.tasks.")
    assert task.csv_form() is not None
    instance = task.accept(json.loads(task.example))
    assert len(task.label_cells(instance)) == task.instance_length(instance)
    assert set(task.bar) == {"1-32", "33-128"}
    in_paper = {lengths.partition(" ")[0] for lengths in task.paper_errors}
    assert in_paper == {"1-32", "33-128"} or not in_paper, "a task is in the paper in both ranges, or not at all"


def test_paper_errors() -> None:
    merge = get_task("merge")
    assert merge.paper_error("33-128 (grid)", "ham") == "2.48"
    assert merge.paper_error("33-128", "ham") is None
    assert merge.paper_error("33-128 (grid)", "lstm") is None


def test_find_task() -> None:
    assert find_task("sort").name == "sort"
    assert find_task("median") is None


MIRROR = """
from lightning_ham.tasks import CellLabel, CsvForm
from lightning_ham.tasks.csv_form import integer, reader
from lightning_ham.tasks.reverse import Reverse

class Mirror(Reverse):
    name = "mirror"
    cell_labels = "the number in front of a mirror"

    def csv_form(self):
        return CsvForm(columns=("left", "right"), row="two integers left,right", read_row=reader(integer, integer),
                       to_instance=lambda rows: [number for row in rows for number in row], files=("row {}",))

    def label_cells(self, instance):
        return [CellLabel(f"m{number}", "the mirror") for number in instance]
"""


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved model of a task that another package registers."""
    info = tmp_path / "site" / "ham_mirror-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ham_mirror\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lightning_ham.tasks]\nmirror = ham_mirror:Mirror\n")
    (tmp_path / "site" / "ham_mirror.py").write_text(MIRROR)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "ham_mirror", raising=False)
    model = tmp_path / "model"
    TrainedModel("mirror", controller_options={"controller_size": 4, "leaf_size": 4}).save_pretrained(model)
    return model


@pytest.mark.usefixtures("restored_threads")
def test_a_plugins_task_has_csv_and_pictures(mirror: Path, tmp_path: Path, capsys) -> None:
    assert "mirror" in task_names()
    (tmp_path / "numbers.csv").write_text("left,right\n7,1000\n42,5\n")
    assert solve.main([str(mirror), str(tmp_path / "numbers.csv")]) == 0
    assert all(0 <= int(number) < 1024 for number in capsys.readouterr().out.split())

    (tmp_path / "wrong.csv").write_text("7,1000\n42\n")
    with pytest.raises(SystemExit):
        solve.main([str(mirror), str(tmp_path / "wrong.csv")])
    wrong = f"{tmp_path / 'wrong.csv'}:2: Expected two integers left,right, but got '42'\n"
    assert capsys.readouterr().err == wrong

    picture = tmp_path / "mirror.svg"
    assert draw.main([str(mirror), "--instance", "[7, 42]", "--output", str(picture)]) == 0
    for text in ("m42", "the mirror", "the number in front of a mirror"):
        assert text in picture.read_text()


def test_what_is_known_of_a_task_does_not_hold_for_one_derived_from_it(mirror: Path) -> None:
    task = get_task("mirror")
    assert (task.bar, task.paper_errors) == ({}, {})
    assert get_task("reverse").bar
