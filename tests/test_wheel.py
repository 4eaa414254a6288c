"""What the wheel holds, read from a wheel that is built."""

import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoints
from pathlib import Path

import pytest

from lightning_ham.__main__ import enter

ROOT = Path(__file__).parent.parent
DATA = {".jinja", ".json", ".md", ".safetensors", ".typed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def contents(wheel):
    return set(wheel.namelist())


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


def test_wheel_has_nothing_beside_the_package(contents):
    assert {name.partition("/")[0].partition("-")[0] for name in contents} == {"lightning_ham"}


def test_wheel_installs_the_console_command(wheel, contents):
    (table,) = (name for name in contents if name.endswith(".dist-info/entry_points.txt"))
    read = EntryPoints._from_text_for(wheel.read(table).decode(), None)
    (script,) = read.select(group="console_scripts")
    assert (script.name, script.load()) == ("lightning-ham", enter)
