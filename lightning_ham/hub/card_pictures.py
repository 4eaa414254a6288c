"""The pictures of a model's card: its learning curve, and its attention in one example."""

from __future__ import annotations

from lightning_ham.hub.card import example
from lightning_ham.models import TaskModel
from lightning_ham.pictures.attention import MAX_LEAVES, draw_attention
from lightning_ham.pictures.curve import CurvePoint, draw_curve
from lightning_ham.pictures.png import png


def card_pictures(model: TaskModel, curve: list[CurvePoint]) -> dict[str, bytes]:
    """Return the pictures of a model's card by their names.

    Leaves out the learning curve if it is empty, and attention without a memory or with too large an example.
    """
    pictures = {}
    if curve:
        pictures["learning_curve.png"] = draw_curve(curve, f"{model.task_name}, {model.num_parameters:,} parameters")
    instance = example(model)
    if model.accesses_per_output > 0 and model.task.instance_length(instance) <= MAX_LEAVES:
        trace = model.trace(instance)
        if not trace["steps"][0]["branch_probabilities"]:  # a controller of another package may have no tree
            return pictures
        # Not the probabilities: their last digit depends on the processor.
        drawn = [str(instance), [step["leaf"] for step in trace["steps"]], str(trace["answer"])]
        picture = draw_attention(model, instance, range(len(trace["steps"])))
        pictures["attention.png"] = png(picture.figure, drawn)
    return pictures
