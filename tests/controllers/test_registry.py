"""Controllers by name, with their options. Plugins are real distributions, found by importlib.metadata itself."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_ham.controllers import LSTMHAM, complete_options, controller_names, make_controller

Install = Callable[..., None]

DEFAULTS = {
    "controller_size": 32,
    "leaf_size": 32,
    "hidden_size": None,
    "join": "gated",
    "real_inputs": 0,
    "accesses_per_output": 1,
    "readout": "state_and_read",
    "grid": None,
}

PLUGIN = """
from lightning_ham.controllers import LSTMHAM

class Small(LSTMHAM):
    def __init__(self, input_size, output_size, width, *, leaf_size=4):
        super().__init__(input_size, output_size, controller_size=width, leaf_size=leaf_size)

def make_open(input_size, output_size, *places, width=8, **anything):
    return Small(input_size, output_size, width)

def make_small(input_size, output_size, width=8):
    return Small(input_size, output_size, width)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package `ham_controllers` on the path, with these entry points for controllers."""

    def install(*entry_points: str, source: str = PLUGIN) -> None:
        info = tmp_path / "ham_controllers-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ham_controllers\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join(["[lightning_ham.controllers]", *entry_points]))
        (tmp_path / "ham_controllers.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "ham_controllers", raising=False)

    return install


def test_options_not_given_are_at_their_defaults():
    assert complete_options("lstm_ham", {}) == DEFAULTS


def test_given_options_take_their_place():
    options = {"leaf_size": 8, "join": "mlp", "hidden_size": None}
    assert complete_options("lstm_ham", options) == DEFAULTS | options
    assert options == {"leaf_size": 8, "join": "mlp", "hidden_size": None}


def test_complete_options_are_complete_already():
    options = complete_options("lstm_ham", {"readout": "read"})
    assert complete_options("lstm_ham", options) == options


def test_controller_is_built_with_its_options():
    options = {"controller_size": 5, "leaf_size": 6, "accesses_per_output": 2, "readout": "read"}
    controller = make_controller("lstm_ham", 3, 4, options)
    assert type(controller) is LSTMHAM
    assert (controller.controller_size, controller.accesses_per_output) == (5, 2)
    assert controller.readout == "read"
    rollout = controller(torch.zeros(2, 4, 3), torch.ones(2, 4, dtype=torch.bool), 3)
    assert rollout.outputs.shape == (2, 3, 4)
    assert rollout.states.shape == (2, 6, 5)
    assert rollout.branch_probs.shape == (2, 6, 2)


GONE = [("lstm_ham", "temperature", 1.0), ("lstm_ham", "read_root", False), ("raw_ham", "temperature", 1)]


@pytest.mark.parametrize(("name", "option", "always"), GONE)
def test_an_option_that_is_gone_may_be_what_is_always_done_and_nothing_else(name, option, always):
    assert complete_options(name, {"leaf_size": 8, option: always}) == complete_options(name, {"leaf_size": 8})
    for other in (0.5, True, "hot", None, [1.0]):
        if other == always:
            continue
        with pytest.raises(ValueError, match=f"^Option '{option}' of controller '{name}' is gone: expected it to be "):
            complete_options(name, {option: other})


@pytest.mark.parametrize("call", [complete_options, lambda name, options: make_controller(name, 3, 4, options)])
def test_a_mistyped_option_is_told_the_nearest_one(call):
    with pytest.raises(ValueError, match="Unknown option 'leaf_sise' of controller 'lstm_ham'") as raised:
        call("lstm_ham", {"leaf_size": 8, "leaf_sise": 8})
    assert "did you mean 'leaf_size'?" in str(raised.value)
    assert f"Known options: {', '.join(DEFAULTS)}" in str(raised.value)


@pytest.mark.parametrize("option", ["input_size", "output_size", "self"])
def test_what_the_task_gives_is_no_option(option):
    with pytest.raises(ValueError, match=f"^Unknown option '{option}' of controller 'lstm_ham'"):
        complete_options("lstm_ham", {option: 1})


def test_an_option_that_resembles_none_is_told_all():
    with pytest.raises(ValueError, match=r"^Unknown option 'xyzzy' .*Known options: controller_size, ") as raised:
        complete_options("lstm_ham", {"xyzzy": 1})
    assert "did you mean" not in str(raised.value)


def test_bad_value_of_an_option():
    message = "Expected argument `leaf_size` to be at least 1, but got 0."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_controller("lstm_ham", 3, 4, {"leaf_size": 0})


def test_unknown_controller():
    with pytest.raises(ValueError, match="Unknown controller 'lstm_hm'; did you mean 'lstm_ham'"):
        complete_options("lstm_hm", {})
    with pytest.raises(ValueError, match="Unknown controller 'lstm_hm'; did you mean 'lstm_ham'"):
        make_controller("lstm_hm", 3, 4, {})


def test_names(install):
    built_in = ["lstm", "lstm_attention", "lstm_ham", "raw_ham"]
    assert controller_names() == built_in
    install("small = ham_controllers:Small", "absent = no_such_module:Controller")
    assert controller_names() == ["absent", *built_in, "small"]


def test_a_plugin_is_built_with_its_own_options(install):
    install("small = ham_controllers:Small")
    assert complete_options("small", {"width": 3}) == {"width": 3, "leaf_size": 4}
    controller = make_controller("small", 3, 2, {"width": 7, "leaf_size": 5})
    assert type(controller).__module__ == "ham_controllers"
    assert controller.controller_size == 7
    assert controller.memory.leaf_size == 5


def test_a_plugin_may_be_a_function(install):
    install("small = ham_controllers:make_small")
    assert complete_options("small", {}) == {"width": 8}
    assert make_controller("small", 3, 2, {}).controller_size == 8


def test_an_option_of_a_plugin_without_default_is_asked_for(install):
    install("small = ham_controllers:Small")
    message = "Expected a value for option 'width' of controller 'small', but got none."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_controller("small", 3, 2, {"leaf_size": 5})


def test_only_named_parameters_of_a_plugin_are_options(install):
    install("open = ham_controllers:make_open")
    assert complete_options("open", {}) == {"width": 8}
    assert make_controller("open", 3, 2, {"width": 4}).controller_size == 4
    with pytest.raises(ValueError, match="Unknown option 'anything' of controller 'open'"):
        complete_options("open", {"anything": 1})


def test_a_mistyped_option_of_a_plugin(install):
    install("small = ham_controllers:Small")
    with pytest.raises(ValueError, match=r"Unknown option 'widht' .*did you mean 'width'\? .*: width, leaf_size"):
        complete_options("small", {"widht": 3})


def test_a_plugin_does_not_take_the_place_of_a_built_in_controller(install):
    install("lstm_ham = ham_controllers:Small")
    with pytest.warns(UserWarning, match="The built-in controller 'lstm_ham' is used"):
        assert complete_options("lstm_ham", {}) == DEFAULTS


def test_a_plugin_that_cannot_be_imported(install):
    install("absent = no_such_module:Controller")
    with pytest.raises(ImportError, match=r"controller 'absent' .*'no_such_module:Controller'"):
        make_controller("absent", 3, 2, {})
