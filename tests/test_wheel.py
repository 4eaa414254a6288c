"""What the packages to publish hold, and that the wheel works where there is no checkout.

`make dist` names the wheel that it has built by the variable LIGHTNING_HAM_WHEEL; else one is built from the sdist.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import EntryPoints
from pathlib import Path

import pytest
import yaml

import lightning_ham
from lightning_ham.__main__ import enter

ROOT = Path(__file__).parent.parent
DATA = {".jinja", ".json", ".md", ".safetensors", ".typed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, beside the sdist that it was built from."""
    if built := os.environ.get("LIGHTNING_HAM_WHEEL"):
        return Path(built).resolve()
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def contents(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_has_every_recipe_and_their_schema(contents):
    paths = [*ROOT.glob("recipes/**/*.yaml"), ROOT / "recipes" / "schema.json"]
    recipes = {f"lightning_ham/{path.relative_to(ROOT).as_posix()}" for path in paths}
    assert recipes == {name for name in contents if name.startswith("lightning_ham/recipes/")}


def test_wheel_has_bundled_weights_templates_and_type_marker(contents):
    data = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("lightning_ham/**/*") if path.suffix in DATA}
    assert "lightning_ham/py.typed" in data
    assert any(name.endswith("model.safetensors") for name in data)
    assert data <= contents
    assert "lightning_ham/hub/card.md.jinja" in contents, "the template of cards, which a checkout has in model_cards"
    assert "lightning_ham/plugin_template/ham_needle/task.py" in contents, "what new_plugin copies"


def test_wheel_has_nothing_beside_the_package(contents):
    assert {name.partition("/")[0].partition("-")[0] for name in contents} == {"lightning_ham"}


def test_sdist_has_what_tests_and_releases_need(wheel):
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = ["Makefile", "constraints.txt", "constraints-oldest.txt", "LICENSE", "SECURITY.md", "tests/conftest.py"]
    needed += ["recipes/sort.yaml", "examples/plugin/needle.yaml", "tests/golden/0.1.0/sort/model.safetensors"]
    assert set(needed) <= names
    assert not [name for name in names if name.startswith(("runs/", "dist/", ".venv/")) or "__pycache__" in name]


def test_an_editable_install_leads_to_the_checkout(tmp_path):
    code = f"from hatchling.build import build_editable; build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (path,) = [name for name in archive.namelist() if name.endswith(".pth")]
    assert Path(archive.read(path).decode()).samefile(ROOT)


# In an environment of its own.

RECIPE = {
    "task": "sort",
    "model": {"controller_options": {"controller_size": 4, "leaf_size": 4}, "engine": "sparse"},
    "data": {"batch_size": 8, "batches_per_epoch": 2, "capacity": 4, "validation_lengths": ["1-4"]},
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "evaluation": {"lengths": ["1-4"], "episodes": 20},
}
RUN = """
import importlib.util, json, sys
import lightning_ham
from lightning_ham import draw, evaluate, fit, from_pretrained, new_plugin, solve

statuses = [
    fit.main(["tiny.yaml"]),
    evaluate.main(["runs/tiny", "--lengths", "1-4", "--episodes", "20"]),
    solve.main(["ham-sort", "pairs.jsonl", "--output", "answers.jsonl"]),
    draw.main(["ham-merge", "--length", "4", "-o", "picture.svg"]),
    new_plugin.main(["parity"]),
]
model = from_pretrained("ham-reverse")
told = {
    "file": lightning_ham.__file__,
    "version": lightning_ham.__version__,
    "statuses": statuses,
    "answer": model.solve([[3, 1, 2]]),
}
json.dump(told, open("told.json", "w"))
fit.main(["sort", "--print_config"])  # ends the process
"""
OTHERS = {
    "schema": (["schema"], '"$schema"'),
    "demo": (["demo", "ham-sort", "--output", "page"], ""),
    "completion": (["completion", "bash"], "complete"),
}
"""Commands that are tried where the package has them: arguments, and a part of what they print."""


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of an environment with the wheel, which sees what is installed here beside it, but no checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    here = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    offline = ["--no-index", "--no-deps", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "--python", here, "install", *offline, wheel], check=True)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([here, "-c", code], check=True, capture_output=True, text=True).stdout.strip())
    others = importlib.util.find_spec("torch").submodule_search_locations[0]
    (site / "others.pth").write_text(f"{Path(others).parent}\n")  # it comes behind the environment's own packages
    return here


@pytest.mark.slow
def test_wheel_trains_answers_and_draws_without_a_checkout(python, environment, tmp_path):
    environment = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "pairs.jsonl").write_text("[[2, 1], [0, 3], [2, 0]]\n")
    done = subprocess.run(
        [python, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert Path(told.pop("file")).is_relative_to(python.parent.parent)
    assert told == {"version": lightning_ham.__version__, "statuses": [0] * 5, "answer": [[2, 1, 3]]}
    assert "\ntask: sort\n" in done.stdout, "the recipe comes with the wheel"
    assert (tmp_path / "answers.jsonl").read_text() == "[[0, 3], [2, 1], [2, 0]]\n"
    assert (tmp_path / "picture.svg").stat().st_size > 1000
    assert (tmp_path / "ham-parity" / "ham_parity" / "task.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", OTHERS)
def test_wheel_has_its_other_commands(python, environment, tmp_path, contents, command):
    if not {f"lightning_ham/{command}.py", f"lightning_ham/{command}/__main__.py"} & contents:
        pytest.skip(f"this version has no command {command}")
    environment = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    arguments, printed = OTHERS[command]
    module = [python, "-m", f"lightning_ham.{arguments[0]}", *arguments[1:]]
    done = subprocess.run(module, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
    assert command != "demo" or (tmp_path / "page" / "index.html").is_file()


def test_version_is_the_packages_and_the_changelogs(wheel):
    assert re.fullmatch(rf"lightning_ham-{re.escape(lightning_ham.__version__)}-py3-none-any\.whl", wheel.name)
    assert re.search(
        rf"^## \[(Unreleased|{re.escape(lightning_ham.__version__)})\]",
        (ROOT / "CHANGELOG.md").read_text(),
        re.MULTILINE,
    )


def test_wheel_installs_the_console_command(wheel, contents):
    (table,) = (name for name in contents if name.endswith(".dist-info/entry_points.txt"))
    read = EntryPoints._from_text_for(zipfile.ZipFile(wheel).read(table).decode(), None)
    (script,) = read.select(group="console_scripts")
    assert (script.name, script.load()) == ("lightning-ham", enter)
