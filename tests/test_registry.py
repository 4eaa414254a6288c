"""Names to objects: built-in ones, those of other packages, and errors for unknown names."""

import re
import warnings
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from lightning_ham import registry
from lightning_ham.registry import Registry

GROUP = "lightning_ham.test_shapes"


@pytest.fixture
def install(monkeypatch):
    """Replaces the installed entry points by those given as `name=value`."""

    def install(*plugins):
        points = EntryPoints(EntryPoint(*plugin.split("="), GROUP) for plugin in plugins)
        monkeypatch.setattr(registry, "entry_points", points.select)

    install()
    return install


@pytest.fixture
def shapes():
    return Registry("shape", {"square": "json:dumps", "broken": "no_such_module:x", "circle": 3.14}, GROUP)


def test_built_in_is_the_object_itself_or_imported_by_its_place(install, shapes):
    import json

    assert shapes.get("circle") == 3.14
    assert shapes.get("square") is json.dumps


def test_entry_point_is_found_and_loaded_only_when_named(install, shapes):
    from collections import OrderedDict

    install("ordered=collections:OrderedDict", "missing=no_such_module:Shape")
    assert shapes.names() == ["broken", "circle", "missing", "ordered", "square"]
    assert shapes.get("ordered") is OrderedDict


def test_entry_points_of_other_groups_do_not_count(install):
    install("ordered=collections:OrderedDict")
    assert Registry("shape", {}, "lightning_ham.other").names() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "circel",
            "Unknown shape 'circel'; did you mean 'circle'? Known shapes: broken, circle, plug, square",
        ),
        ("plugg", "Unknown shape 'plugg'; did you mean 'plug'? Known shapes: broken, circle, plug, square"),
        ("xyz", "Unknown shape 'xyz'. Known shapes: broken, circle, plug, square"),
    ],
)
def test_unknown_name_lists_the_known_ones(install, shapes, name, message):
    install("plug=no_such_module:Plug")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        shapes.get(name)


def test_built_in_wins_over_an_entry_point_of_its_name_with_a_warning(install, shapes):
    install("circle=collections:OrderedDict")
    with pytest.warns(UserWarning, match=r"built-in shape 'circle' is used; 'collections:OrderedDict' registers"):
        assert shapes.get("circle") == 3.14
    assert shapes.names() == ["broken", "circle", "square"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shapes.get("square")


def test_two_entry_points_of_one_name_are_refused(install, shapes):
    install("plug=json:dumps", "plug=json:loads")
    with pytest.raises(ValueError, match=r"Expected one shape 'plug' .* but got 'json:dumps' and 'json:loads'"):
        shapes.get("plug")


@pytest.mark.parametrize("value", ["no_such_module:Plug", "json:no_such_name"])
def test_entry_point_that_does_not_load_is_named(install, shapes, value):
    install(f"plug={value}")
    with pytest.raises(ImportError, match=f"the shape 'plug' from the entry point '{value}', but got: .*no_such"):
        shapes.get("plug")


def test_broken_built_in_is_not_blamed_on_a_plugin(install, shapes):
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        shapes.get("broken")
