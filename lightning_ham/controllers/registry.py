"""Controllers by name: the built-in ones and those that other packages register."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from lightning_ham.controllers.rollout import Controller
from lightning_ham.foreign import closest_to, quoted
from lightning_ham.registry import PluginError, Registry

_CONTROLLERS: Registry[Callable[..., nn.Module]] = Registry(
    "controller",
    group="lightning_ham.controllers",
    built_in={
        "lstm": "lightning_ham.controllers.seq2seq:EncoderDecoder",
        "lstm_attention": "lightning_ham.controllers.seq2seq:AttentionEncoderDecoder",
        "lstm_ham": "lightning_ham.controllers.lstm_ham:LSTMHAM",
        "raw_ham": "lightning_ham.controllers.raw_ham:RawHAM",
    },
    makes=nn.Module,
)


def controller_names() -> list[str]:
    """Return the names of all controllers, built-in and registered, sorted."""
    return _CONTROLLERS.names()


def controller_class(name: str) -> Callable[..., nn.Module]:
    """Return what makes the controller ``name``: its class, or a function of another package."""
    return _CONTROLLERS.get(name)


def complete_options(
    name: str, options: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Return all options of the controller ``name``: ``options``, completed with defaults.

    Options that the controller no longer has (``gone_options``) are accepted with their only valid value, and left out.

    Args:
        name: The controller.
        options: The chosen values.
        defaults: Replace the controller's own defaults; options that it does not have are ignored.

    Raises:
        ValueError: If the controller or an option is unknown, a required one is missing, or a gone one differs.
    """
    controller = _CONTROLLERS.get(name)
    options = _without_gone(name, options, getattr(controller, "gone_options", {}))
    parameters = list(inspect.signature(controller).parameters.values())[2:]
    unnamed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = {
        parameter.name: defaults.get(parameter.name, parameter.default)
        for parameter in parameters
        if parameter.kind not in unnamed
    }
    for option in options:
        if option not in known:
            close = closest_to(option, known)
            hint = f"did you mean {close!r}? " if close else ""
            raise ValueError(
                f"Unknown option {quoted(option)} of controller {name!r}; {hint}Known options: {', '.join(known)}."
            )
    required = [option for option, default in known.items() if default is inspect.Parameter.empty]
    missing = [option for option in required if option not in options]
    if missing:
        raise ValueError(f"Expected a value for option {missing[0]!r} of controller {name!r}, but got none.")
    return {option: options.get(option, default) for option, default in known.items()}


def _without_gone(name: str, options: Mapping[str, Any], gone: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without those in ``gone``; raise a ValueError if one of these has another value there."""
    for option, always in gone.items():
        value = options.get(option, always)
        if not (isinstance(value, int | float) and value == always):
            raise ValueError(
                f"Option {option!r} of controller {name!r} is gone: expected it to be {always!r}, which is what is "
                f"always done now, but got {quoted(value)}."
            )
    return {option: value for option, value in options.items() if option not in gone}


def added_options(name: str) -> Mapping[str, Any]:
    """Return the options that older saved models of the controller ``name`` lack, with the values they had."""
    added: Mapping[str, Any] = getattr(_CONTROLLERS.get(name), "added_options", {})
    return added


def make_controller(name: str, input_size: int, output_size: int, options: Mapping[str, Any]) -> nn.Module:
    """Build the controller ``name`` for cells of ``input_size`` numbers and outputs of ``output_size`` bits.

    Raises:
        ValueError: If the controller or an option is unknown or invalid.
        PluginError: If another package's controller cannot be loaded, or is no :class:`Controller`.
    """
    controller: nn.Module = _CONTROLLERS.make(name, input_size, output_size, **complete_options(name, options))
    for attribute in Controller.__annotations__:
        if not hasattr(controller, attribute):
            raise PluginError(
                f"Expected a controller with the attribute {attribute!r} from {_CONTROLLERS.origin(name)}, but got one "
                "without it"
            )
    return controller
