"""Packages that add tasks, controllers, estimators and JOINs: the one that new_plugin writes, and broken ones."""

import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from lightning_ham import __version__, new_plugin
from lightning_ham.controllers import make_controller
from lightning_ham.memory import HierarchicalAttentiveMemory
from lightning_ham.memory.attention import get_estimator
from lightning_ham.memory.transforms import GatedJoin, make_join
from lightning_ham.registry import PluginError
from lightning_ham.tasks import get_task, task_names
from lightning_ham.tasks.sort import Sort

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin"
LOOK_UP = {
    "task": get_task,
    "controller": lambda name: make_controller(name, 4, 4, {}),
    "estimator": get_estimator,
    "JOIN": lambda name: make_join(name, 4, 4),
}
"""How an object of each kind is got by its name."""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution on the path, with an object of each kind, all called by one name."""

    def install(package, source, name="mine", value="Mine", requires=()):
        site = tmp_path / package
        info = site / f"{package}-2.5.dist-info"
        info.mkdir(parents=True)
        required = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.5\n{required}")
        groups = (f"[lightning_ham.{kind.lower()}s]\n{name} = {package}:{value}\n" for kind in LOOK_UP)
        (info / "entry_points.txt").write_text("".join(groups))
        (site / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, package, raising=False)
        importlib.invalidate_caches()
        return site

    return install


# Packages that cannot be used.


@pytest.mark.parametrize("kind", LOOK_UP)
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("Other = 1", "module 'ham_broken' has no attribute 'Mine'"),
        ("raise RuntimeError('no device')", "RuntimeError: no device"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("Mine = class", "SyntaxError: invalid syntax (ham_broken.py, line 1)"),
    ],
)
def test_one_that_cannot_be_imported_is_named(install, kind, source, reason):
    install("ham_broken", source)
    start = f"Expected to load the {kind} 'mine' from the entry point 'ham_broken:Mine' of ham_broken 2.5, but got: "
    with pytest.raises(PluginError) as raised:
        LOOK_UP[kind]("mine")
    assert str(raised.value) == f"{start}{reason}"


@pytest.mark.parametrize("kind", LOOK_UP)
@pytest.mark.parametrize("source", ["Mine = 3", "class Mine:\n    def __init__(self, *_): pass"])
def test_one_with_something_else_is_named(install, kind, source):
    install("ham_wrong", source)
    with pytest.raises(PluginError, match=r"^Expected .* 'ham_wrong:Mine' of ham_wrong 2\.5.* but got "):
        LOOK_UP[kind]("mine")


def test_a_task_that_lacks_a_method_is_named(install):
    install("ham_half", "from lightning_ham.tasks import Task\nclass Mine(Task):\n    name = 'mine'")
    message = r"^Expected a Task from .* of ham_half 2\.5, but got: TypeError: .*abstract class Mine"
    with pytest.raises(PluginError, match=message):
        get_task("mine")


def test_a_controller_that_lacks_an_attribute_is_named(install):
    install(
        "ham_half", "from torch.nn import Module\nclass Mine(Module):\n    def __init__(self, a, b): super().__init__()"
    )
    message = r"^Expected a controller with the attribute 'controller_size' from .* of ham_half 2\.5, but"
    with pytest.raises(PluginError, match=message):
        LOOK_UP["controller"]("mine")


@pytest.mark.parametrize("kind", LOOK_UP)
@pytest.mark.parametrize("wanted", ["<0.1", ">=99", "!=0.1.0"])
def test_one_for_another_version_is_not_imported(install, kind, wanted):
    install("ham_old", "raise RuntimeError", requires=["torch", f"Lightning_HAM {wanted}", "not a requirement !"])
    message = rf"of ham_old 2\.5, but that package is for lightning_ham {wanted}, and this is {__version__}\. Install"
    with pytest.raises(PluginError, match=message):
        LOOK_UP[kind]("mine")


@pytest.mark.parametrize(
    "requires", [["lightning-ham>=0.1"], ["lightning-ham"], ['lightning-ham<0.1; extra == "x"'], []]
)
def test_one_for_this_version_is_used(install, requires):
    install(
        "ham_fits", "from lightning_ham.tasks.sort import Sort\nclass Mine(Sort):\n    name = 'mine'", requires=requires
    )
    assert isinstance(get_task("mine"), Sort)


@pytest.mark.parametrize("kind", LOOK_UP)
def test_two_of_one_name_are_both_named(install, kind):
    for package in ("ham_one", "ham_two"):
        install(package, "")
    message = r"but got 'ham_one:Mine' of ham_one 2\.5 and 'ham_two:Mine' of ham_two 2\.5; uninstall all but one"
    with pytest.raises(ValueError, match=message):
        LOOK_UP[kind]("mine")


def test_a_name_of_ours_stays_ours_and_is_told_once(install):
    install("ham_gated", "raise RuntimeError", name="gated")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        for _ in range(3):
            assert type(make_join("gated", 4, 4)) is GatedJoin
    (warning,) = warned
    assert "built-in JOIN 'gated' is used; 'ham_gated:Mine' of ham_gated 2.5 registers the same" in str(warning.message)


BESIDE = """
import contextlib, io, sys
from lightning_ham import draw, fit, new_plugin, solve
from lightning_ham.models import __main__ as models

for main, arguments in (
    (models.main, []),
    (solve.main, ["ham-sort", "pairs.jsonl"]),
    (draw.main, ["ham-sort", "-o", "picture.svg"]),
    (new_plugin.main, ["other"]),
    (fit.main, ["reverse", "--print_config"]),
):
    with contextlib.suppress(SystemExit):
        main(arguments)
"""


def test_broken_ones_leave_other_commands_as_they_are(install, environment, tmp_path):
    sites = [install("ham_broken", "import no_such_module"), install("ham_old", "", requires=["lightning-ham<0.1"])]
    work = tmp_path / "work"
    work.mkdir()
    (work / "pairs.jsonl").write_text("[[2, 1], [0, 3]]\n")
    path = os.pathsep.join([str(EXAMPLE.parents[1]), *map(str, sites)])
    command = [sys.executable, "-c", BESIDE]
    done = subprocess.run(
        command, cwd=work, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    for line in ("ham-stack", "[[0, 3], [2, 1]]", "Wrote ham-other.", "task: reverse"):
        assert re.search(f"^{re.escape(line)}", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert (work / "picture.svg").stat().st_size > 1000
    assert "ham_broken" not in done.stderr


# The package that new_plugin writes.


def test_its_parts_are_of_the_example_with_another_name(tmp_path):
    new_plugin.write_plugin("needle", tmp_path / "same")
    new_plugin.write_plugin("big_sum", tmp_path / "other")
    files = {path.relative_to(tmp_path / "same") for path in (tmp_path / "same").rglob("*") if path.is_file()}
    tracked = subprocess.run(["git", "ls-files"], cwd=EXAMPLE, capture_output=True, text=True, check=False)
    if tracked.returncode == 0:
        assert {str(file) for file in files} == set(tracked.stdout.split())
    for file in files:
        assert (tmp_path / "same" / file).read_bytes() == (EXAMPLE / file).read_bytes()
    assert len([path for path in (tmp_path / "other").rglob("*") if path.is_file()]) == len(files)
    assert not [path for path in (tmp_path / "other").rglob("*") if "needle" in path.name.lower()]
    text = "".join(path.read_text() for path in (tmp_path / "other").rglob("*") if path.is_file())
    assert "needle" not in text.lower()
    assert "class BigSum(Task" in text
    assert 'name = "ham-big-sum"' in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sort"], "Expected a name that is not taken, but there is already a task sort; choose another one."),
        (["Parity"], "argument NAME: Expected a name of at most 40 lower-case letters, digits and single _ between"),
        (["class"], "but got 'class'"),
        (["ünder"], "but got 'ünder'"),
        (["../x"], "but got '../x'"),
        (["a__b"], "but got 'a__b'"),
        (["a" * 41], "but got 'aaa"),
        ([], "the following arguments are required: NAME"),
        (["new", "--output", "full"], "Expected a new or empty folder to write to, but there are files in full."),
        (["new", "--output", "file"], "Expected a new or empty folder to write to, but there are files in file."),
    ],
)
def test_wrong_input_writes_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        new_plugin.main(arguments)
    error = capsys.readouterr().err
    assert (ended.value.code, error.count("\n")) == (2, 1)
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package's folder, and the folder that pip installed it into, without a network."""
    folder = tmp_path_factory.mktemp("plugin") / "ham-big-sum"
    new_plugin.write_plugin("big_sum", folder)
    target = tmp_path_factory.mktemp("site")
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", target, folder], check=True)
    return folder, target


@pytest.mark.slow
def test_it_installs_passes_its_tests_learns_and_answers(installed, environment, tmp_path):
    folder, site = installed
    environment = environment | {"PYTHONPATH": os.pathsep.join([str(EXAMPLE.parents[1]), str(site)])}

    def run(*arguments):
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert " passed" in run("pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests"))
    (trained,) = (tmp_path / "tests").glob("*learns0/runs/big_sum")
    config = json.loads((trained / "model" / "config.json").read_text())
    assert (config["task"], config["controller"]) == ("big_sum", "big_sum_controller")
    assert config["controller_options"]["join"] == "big_sum_join"
    (folder / "pairs.jsonl").write_text("[[3, 0], [200, 0], [17, 1], [254, 0]]\n")
    assert run("lightning_ham.solve", str(trained), "pairs.jsonl") == "17\n"


def test_without_the_package_its_names_are_unknown(tmp_path, fit):
    assert "needle" not in task_names()
    with pytest.raises(ValueError, match=r"to be one of \('gated', 'choice', 'mlp'\), but got 'needle_join'"):
        HierarchicalAttentiveMemory(3, 4, join="needle_join")
    (tmp_path / "needle.yaml").write_text("task: needle\n")
    done = fit(tmp_path, "needle.yaml")
    assert done.returncode == 2
    assert "Unknown task 'needle'" in done.stderr
