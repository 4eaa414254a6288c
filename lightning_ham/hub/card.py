"""The card of a model (``README.md``): made of what was measured, with a template, never by hand."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from lightning_ham.models import TaskModel

if TYPE_CHECKING:  # the floor of training brings Lightning, which a card has no use for
    from lightning_ham.training.evaluation import Evaluation, LengthResult

TEMPLATE = Path(__file__).with_name("card.md.jinja")


class TrainingInfo(TypedDict):
    """How a model was trained, as plain data."""

    recipe: str
    command: str
    seed: int
    updates: int
    episodes: int
    seconds: float
    machine: str
    hyper_parameters: dict[str, Any]


def render_card(
    model: TaskModel,
    folder_name: str,
    evaluation: Evaluation | None = None,
    training: TrainingInfo | None = None,
) -> str:
    """Return the text of a model's card: YAML that the Hub reads, then Markdown.

    Args:
        model: The model; it answers the card's example itself.
        folder_name: Name of the folder that the card will stand in, for the example.
        evaluation: What :func:`lightning_ham.training.evaluation.evaluate` measured on this model, if it was
            evaluated.
        training: How the model was trained, if that is known.

    Raises:
        ValueError: If the evaluation is another model's, or a key of ``training`` is missing or unknown.
    """
    if evaluation is not None:
        _check_evaluation(model, evaluation)
    if training is not None and training.keys() != TrainingInfo.__annotations__.keys():
        expected, got = ", ".join(TrainingInfo.__annotations__), ", ".join(training)
        raise ValueError(f"Expected argument `training` to have the keys {expected}, but got {got}.")
    documentation = inspect.cleandoc(type(model.task).__doc__ or f"The task {model.task_name}.")
    instance = example(model)
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(repr=repr, percent=_percent, cell=_cell, duration=_duration)
    body = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        model=model,
        name=_name(model),
        folder_name=folder_name,
        summary=documentation.partition("\n")[0],
        documentation=documentation,
        instance=instance,
        answer=model.solve([instance])[0],
        evaluation=evaluation,
        training=training,
        hyper_parameters=json.dumps(training["hyper_parameters"], indent=2) if training else "",
    )
    return f"---\n{_metadata(model, evaluation).to_yaml()}\n---\n\n{body}"


def example(model: TaskModel) -> Any:
    """Return a small instance of the model's task, always the same."""
    task = model.task
    length = task.min_length + 3 * task.length_step
    episodes = task.sample(1, (length, length), generator=torch.Generator().manual_seed(0))
    return _rounded(task.decode_inputs(episodes.inputs[0], episodes.occupied[0]))


def _rounded(instance: Any) -> Any:
    """Return an instance without the many digits of 32-bit numbers."""
    if isinstance(instance, list):
        return [_rounded(part) for part in instance]
    if isinstance(instance, tuple):
        return tuple(_rounded(part) for part in instance)
    return round(instance, 3) if isinstance(instance, float) else instance


def _check_evaluation(model: TaskModel, evaluation: Evaluation) -> None:
    expected = {
        "task": model.task_name,
        "controller": model.controller_name,
        "num_parameters": model.num_parameters,
    }
    for key, value in expected.items():
        if evaluation.get(key) != value:
            got = evaluation.get(key)
            raise ValueError(f"Expected an evaluation of this model, with {key} {value!r}, but got {got!r}.")


def _name(model: TaskModel) -> str:
    return f"ham-{model.task_name}"


def _metadata(model: TaskModel, evaluation: Evaluation | None) -> ModelCardData:
    results = []
    if evaluation is not None:
        results = [metric for result in evaluation["results"] for metric in _metrics(model, evaluation, result)]
    return ModelCardData(
        library_name="lightning-ham",
        license="apache-2.0",
        tags=[
            "lightning-ham",
            "hierarchical-attentive-memory",
            "algorithm-learning",
            "arxiv:1602.03218",
            model.task_name,
        ],
        model_name=_name(model) if results else None,
        eval_results=results or None,
    )


def _metrics(model: TaskModel, evaluation: Evaluation, result: LengthResult) -> list[EvalResult]:
    """Return the errors on one range of lengths, shares in [0, 1], in the form of the Hub's model index."""
    span = "-".join(map(str, result["lengths"]))
    low, high = result["interval"]
    names = {
        "sequence_error": f"share of wrong sequences (95 % interval {low:.5f} to {high:.5f})",
        "symbol_error": "share of wrong symbols",
        "bit_error": "share of wrong bits",
    }
    return [
        EvalResult(
            task_type="other",
            task_name=model.task_name,
            dataset_type=f"lightning_ham/{model.task_name}",
            dataset_name=f"{model.task_name}, lengths {span}",
            dataset_config=span,  # the Hub takes results of one dataset and config for one
            dataset_args={
                "lengths": result["lengths"],
                "capacity": result["capacity"],
                "episodes": result["episodes"],
                "seed": evaluation["seed"],
            },
            metric_type=metric,
            metric_name=name,
            metric_value=value,
        )
        for (metric, name), value in zip(
            names.items(),
            (result["sequence_error"], result["symbol_error"], result["bit_error"]),
            strict=True,
        )
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _cell(text: object) -> str:
    """Return text that stays within its cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _duration(seconds: float) -> str:
    """Return seconds in words.

    >>> _duration(59.6), _duration(754), _duration(7380)
    ('60 s', '12 min 34 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
