"""What every export tells of its model."""

from __future__ import annotations

from typing import Any

from lightning_ham import __version__
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.measured import read_card


def facts(model: TrainedModel, name: str) -> dict[str, Any]:
    """Return the facts about a model that all formats share, as plain data.

    =================  =================================================================================================
    key                value
    =================  =================================================================================================
    ``lightning_ham``  version of the package that exports the model
    ``name``           the model's name
    ``task``           the task's name
    ``config``         what ``config.json`` of the saved model holds: controller, options, hash of the weights
    ``supervision``    kinds of supervision that its training had, as its card tells; empty if unknown
    ``results``        measured share of wrong sequences, in [0, 1], by lengths (``"1-32"``); empty if unknown
    =================  =================================================================================================

    Args:
        model: The model.
        name: Its name.
    """
    return {
        "lightning_ham": __version__,
        "name": name,
        "task": model.task_name,
        "config": model.config(),
        "supervision": list(read_card(model.card).supervision) if model.card else [],
        "results": {str(lengths): share for lengths, share in model.measured.items()},
    }
