"""Tasks by name. Plugins are real distributions on the path, found by importlib.metadata itself."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_ham.registry import PluginError
from lightning_ham.tasks import find_task, get_task, task_names
from lightning_ham.tasks.add import Add
from lightning_ham.tasks.fifo import Queue
from lightning_ham.tasks.merge import Merge
from lightning_ham.tasks.priority_queue import PriorityQueue
from lightning_ham.tasks.reverse import Reverse
from lightning_ham.tasks.search import Search
from lightning_ham.tasks.sort import Sort
from lightning_ham.tasks.stack import Stack

BUILT_IN = {
    "add": Add,
    "merge": Merge,
    "priority_queue": PriorityQueue,
    "queue": Queue,
    "reverse": Reverse,
    "search": Search,
    "sort": Sort,
    "stack": Stack,
}

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package on the path: its name (also that of its module), its entry points, and its source."""

    def install(package: str, tasks: str, source: str) -> None:
        site = tmp_path / package
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[lightning_ham.tasks]\n{tasks}\n")
        (site / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return install


LAST_FIRST = """
from lightning_ham.tasks.reverse import Reverse

class LastFirst(Reverse):
    name = "last_first"

def make_last_first():
    return LastFirst()

def make_nothing():
    return None
"""


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_tasks(name: str) -> None:
    assert type(get_task(name)) is BUILT_IN[name]
    assert get_task(name).name == name
    assert name in task_names()


HINT_KINDS = {
    "search": ("echo",),
    "add": ("echo",),
    "stack": ("state",),
    "queue": ("state",),
    "priority_queue": ("echo", "state"),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_task_says_what_its_hints_are_if_it_has_any(name: str) -> None:
    task = get_task(name)
    assert task.hint_kinds == HINT_KINDS.get(name, ())
    assert bool(task.hint_kinds) == bool(task.num_hints)


def test_names_are_sorted() -> None:
    assert task_names() == sorted(task_names())


@pytest.mark.parametrize("maker", ["LastFirst", "make_last_first"])
def test_a_plugin_is_found_by_its_entry_point(install: Install, maker: str) -> None:
    install("ham_plugin", f"last_first = ham_plugin:{maker}", LAST_FIRST)
    assert "last_first" in task_names()
    task = get_task("last_first")
    assert type(task).__name__ == "LastFirst"
    assert task.oracle([1, 2, 3]) == [3, 2, 1]


def test_a_plugin_is_imported_only_when_asked_for(install: Install) -> None:
    install("ham_broken", "broken = ham_broken:Broken", "raise RuntimeError('imported')")
    assert "broken" in task_names()
    assert get_task("sort").name == "sort"
    message = "the task 'broken' from the entry point 'ham_broken:Broken' of ham_broken 1.0, but got: RuntimeError: imp"
    with pytest.raises(PluginError, match=message):
        get_task("broken")
    assert find_task("broken") is None


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="Unknown task 'srot'; did you mean 'sort'") as raised:
        get_task("srot")
    assert str(raised.value).endswith(f"Known tasks: {', '.join(task_names())}")
    with pytest.raises(ValueError, match=r"^Unknown task 'xyzzy'\. Known tasks: add, "):
        get_task("xyzzy")


def test_a_plugin_may_be_the_one_that_was_meant(install: Install) -> None:
    install("ham_plugin", "last_first = ham_plugin:LastFirst", LAST_FIRST)
    with pytest.raises(ValueError, match="did you mean 'last_first'"):
        get_task("last-first")


def test_a_plugin_may_not_take_a_built_in_name(install: Install) -> None:
    install("ham_plugin", "sort = ham_plugin:LastFirst", LAST_FIRST)
    with pytest.warns(UserWarning, match="built-in task 'sort' is used; 'ham_plugin:LastFirst' of ham_plugin 1.0 reg"):
        assert type(get_task("sort")) is Sort


def test_two_plugins_may_not_take_one_name(install: Install) -> None:
    install("ham_plugin", "last_first = ham_plugin:LastFirst", LAST_FIRST)
    install("ham_rival", "last_first = ham_rival:LastFirst", LAST_FIRST)
    with pytest.raises(ValueError, match=r"but got 'ham_plugin:LastFirst' of ham_plugin 1.0 and 'ham_rival:L"):
        get_task("last_first")


def test_a_plugin_that_makes_no_task(install: Install) -> None:
    install("ham_plugin", "nothing = ham_plugin:make_nothing", LAST_FIRST)
    message = "^Expected a Task from the entry point 'ham_plugin:make_nothing' of ham_plugin 1.0, but got None$"
    with pytest.raises(PluginError, match=message):
        get_task("nothing")


def test_a_plugin_named_otherwise_than_its_task(install: Install) -> None:
    install("ham_plugin", "backwards = ham_plugin:LastFirst", LAST_FIRST)
    with pytest.raises(PluginError, match=r"named 'backwards'.* of ham_plugin 1.0, but got 'last_first'"):
        get_task("backwards")
