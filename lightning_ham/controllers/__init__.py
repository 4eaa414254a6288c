"""Networks that use a memory, in torch only."""

from lightning_ham.controllers.lstm_ham import LSTMHAM
from lightning_ham.controllers.registry import complete_options, controller_names, make_controller
from lightning_ham.controllers.rollout import Controller, Rollout

__all__ = ["LSTMHAM", "Controller", "Rollout", "complete_options", "controller_names", "make_controller"]
