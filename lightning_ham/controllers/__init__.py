"""Networks that use a memory, in torch only."""

from lightning_ham.controllers.lstm_ham import LSTMHAM
from lightning_ham.controllers.registry import (
    added_options,
    complete_options,
    controller_class,
    controller_names,
    make_controller,
)
from lightning_ham.controllers.rollout import Controller, Rollout
from lightning_ham.engines import compile_seconds, get_num_threads, set_num_threads

__all__ = [
    "LSTMHAM",
    "Controller",
    "Rollout",
    "added_options",
    "compile_seconds",
    "complete_options",
    "controller_class",
    "controller_names",
    "get_num_threads",
    "make_controller",
    "set_num_threads",
]
