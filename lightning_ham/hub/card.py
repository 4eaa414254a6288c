"""The card of a model (``README.md``): made of what was measured, with a template, never by hand."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from lightning_ham.evaluation.bars import missed
from lightning_ham.evaluation.record import Evaluation, LengthResult, errors_by_lengths, span
from lightning_ham.evaluation.words import mistakes_in_words, percent, share_in_words
from lightning_ham.hub.supervision import TAG, explained, guided_fraction, in_words, supervision
from lightning_ham.models import TaskModel

_IN_PACKAGE = Path(__file__).with_name("card.md.jinja")
TEMPLATE = _IN_PACKAGE if _IN_PACKAGE.is_file() else Path(__file__).parents[2] / "model_cards" / "card.md.jinja"
"""Inside the package when installed from a wheel, in ``model_cards/`` in a checkout."""


class Comparison(NamedTuple):
    """Another model for the same task, whose errors a card shows beside its model's."""

    title: str
    num_parameters: int
    errors: dict[str, float]
    """Share of wrong sequences, in [0, 1], by lengths, such as ``1-32``."""


class CurvePoint(TypedDict):
    """What was measured at one validation of a training."""

    update: int
    """Updates until then."""
    episodes: int
    """Episodes trained on until then; 0 where it was not logged."""
    seconds: int
    """Trained for until then, validation counted; 0 where it was not logged."""
    capacity: int
    """Leaves that the curriculum was at."""
    errors: dict[str, float]
    """Share of wrong sequences by validation set: ``current`` is the one at the curriculum's capacity, others are named
    by their lengths, such as ``1-32``."""


class _AlwaysKnown(TypedDict):
    """What is known of every training."""

    recipe: str
    command: str
    seed: int
    updates: int
    episodes: int
    seconds: float
    machine: str
    versions: dict[str, str]
    commit: str | None
    """Of the checkout that trained it, with ``-dirty`` if it had changes; None where there was none."""
    wandb_url: str | None
    """Of the run in W&B; None where it was not logged online."""
    curve: list[CurvePoint]
    hyper_parameters: dict[str, Any]


class TrainingInfo(_AlwaysKnown, total=False):
    """How a model was trained, as plain data."""

    bar: dict[str, float]
    """Share of wrong sequences that the recipe wanted at most, by lengths; empty, or not there, if it had no bar."""


def is_complete(training: Mapping[str, Any]) -> bool:
    """Return whether what is told of a training has the keys of a :class:`TrainingInfo`, and no other."""
    return (
        TrainingInfo.__required_keys__
        <= training.keys()
        <= TrainingInfo.__required_keys__ | TrainingInfo.__optional_keys__
    )


def missed_bar(
    bar: Mapping[str, float], evaluation: Evaluation, curve: Sequence[CurvePoint]
) -> dict[str, float | None]:
    """Return the errors that are above a bar, by lengths; None for one that was never measured.

    Args:
        bar: Share of wrong sequences that there may be, by lengths.
        evaluation: Where the errors are looked for first.
        curve: The validations, the last of which counts at lengths that were not evaluated.
    """
    measured: dict[str, float] = {}
    for point in curve:
        measured |= point["errors"]
    measured |= errors_by_lengths(evaluation["results"])
    return missed(bar, measured)


def render_card(
    model: TaskModel,
    load_name: str,
    evaluation: Evaluation | None = None,
    training: TrainingInfo | None = None,
    comparisons: Sequence[Comparison] = (),
    pictures: Mapping[str, str] | None = None,
    is_folder: bool = False,
) -> str:
    """Return the text of a model's card: YAML that the Hub reads, then Markdown.

    Args:
        model: The model; it answers the card's example itself.
        load_name: What the example loads the model by.
        evaluation: What :func:`lightning_ham.evaluation.evaluate` measured on this model, if it was
            evaluated.
        training: How the model was trained, if that is known.
        comparisons: What else was measured on the task.
        pictures: Where the pictures are that the card shows, by name: ``learning_curve.png``, ``attention.png``.
        is_folder: Whether ``load_name`` is only the name of the folder that the card will stand in, not a name that
            :func:`lightning_ham.from_pretrained` knows wherever it is called.

    Raises:
        ValueError: If the evaluation is another model's, or a key of ``training`` is missing or unknown.
    """
    if evaluation is not None:
        _check_evaluation(model, evaluation)
    if training is not None and not is_complete(training):
        expected, got = ", ".join(TrainingInfo.__annotations__), ", ".join(training)
        raise ValueError(f"Expected argument `training` to have the keys {expected}, but got {got}.")
    documentation = inspect.cleandoc(type(model.task).__doc__ or f"The task {model.task_name}.")
    controller = inspect.cleandoc(type(model.controller).__doc__ or "").partition("\n\n")[0]
    instance = example(model)
    kinds = supervision(model.task, training["hyper_parameters"]) if training else ()
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(
        row=span,
        repr=repr,
        words=in_words,
        explained=explained,
        share=share_in_words,
        percent=percent,
        cell=_cell,
        duration=duration,
        versions=_versions,
    )
    body = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        model=model,
        name=_name(model),
        has_memory=model.accesses_per_output > 0,
        controller_summary=" ".join(controller.split()),
        load_name=load_name,
        is_folder=is_folder,
        summary=documentation.partition("\n")[0],
        documentation=documentation,
        sizes=model.task.sizes_in_words(result["lengths"] for result in evaluation["results"]) if evaluation else "",
        instance=instance,
        answer=model.solve([instance])[0],
        evaluation=evaluation,
        beside=_beside(model, evaluation, comparisons) if evaluation else [],
        mistakes=[mistakes_in_words(result) for result in evaluation["results"] if result["wrong_sequences"]]
        if evaluation
        else [],
        training=training,
        missed=missed_bar(training.get("bar", {}), evaluation, training["curve"]) if training and evaluation else {},
        trained_length=training["hyper_parameters"].get("data", {}).get("capacity") if training else None,
        supervision=kinds,
        guided_fraction=guided_fraction(training["hyper_parameters"]) if training else 0,
        hyper_parameters=json.dumps(training["hyper_parameters"], indent=2) if training else "",
        pictures=pictures or {},
    )
    card = f"---\n{_metadata(model, evaluation, training, kinds).to_yaml()}\n---\n\n{body}"
    # Names of files need be no text: bytes that Python could not read as such are read as UTF-8, or shown as \\xe9.
    return card.encode(errors="surrogateescape").decode(errors="backslashreplace")


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
    """Return what a model is called: a HAM only if it has such a memory."""
    kind = "ham" if model.accesses_per_output > 0 else model.controller_name
    return f"{kind}-{model.task_name}".replace("_", "-")


def _beside(model: TaskModel, evaluation: Evaluation, comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Return a table's header and rows: the model's errors, those of others, the paper's; empty if there are none."""
    results = {span(result): result for result in evaluation["results"]}

    def row(title: str, parameters: int | None, errors: Mapping[str, str]) -> list[str]:
        return [title, f"{parameters:,}" if parameters else "", *(errors.get(lengths, "") for lengths in results)]

    mine = {lengths: percent(result["sequence_error"]) for lengths, result in results.items()}
    rows = [row("this model", model.num_parameters, mine)]
    for other in comparisons:
        theirs = {lengths: percent(error) for lengths, error in other.errors.items()}
        rows.append(row(_cell(other.title), other.num_parameters, theirs))
    for title, key in {"HAM": "ham", "LSTM+A": "lstm_attention", "LSTM": "lstm"}.items():
        figures = {lengths: model.task.paper_error(lengths, key) for lengths in results}
        papers = {lengths: f"{figure} %" for lengths, figure in figures.items() if figure is not None}
        if papers:
            rows.append(row(f"the paper's {title}", None, papers))
    return [["", "parameters", *results], *rows] if len(rows) > 1 else []


def _metadata(
    model: TaskModel, evaluation: Evaluation | None, training: TrainingInfo | None, kinds: Sequence[str]
) -> ModelCardData:
    results = []
    if evaluation is not None:
        url = training["wandb_url"] if training else None
        results = [metric for result in evaluation["results"] for metric in _metrics(model, evaluation, result, url)]
    return ModelCardData(
        library_name="lightning-ham",
        license="apache-2.0",
        tags=[
            "lightning-ham",
            "hierarchical-attentive-memory" if model.accesses_per_output > 0 else "comparison-model",
            "algorithm-learning",
            "arxiv:1602.03218",
            model.task_name,
            *(f"{TAG}{kind}" for kind in kinds),
        ],
        model_name=_name(model) if results else None,
        eval_results=results or None,
    )


def _metrics(
    model: TaskModel, evaluation: Evaluation, result: LengthResult, wandb_url: str | None
) -> Iterator[EvalResult]:
    """Yield the errors on one range of lengths, shares in [0, 1], in the form of the Hub's model index."""
    lengths = span(result)
    low, high = result["interval"]
    errors = {
        "sequence_error": (
            f"share of wrong sequences (95 % interval {low:.5f} to {high:.5f})",
            result["sequence_error"],
        ),
        "symbol_error": ("share of wrong symbols", result["symbol_error"]),
        "bit_error": ("share of wrong bits", result["bit_error"]),
    }
    for metric, (name, value) in errors.items():
        yield EvalResult(
            task_type="other",
            task_name=model.task_name,
            dataset_type=f"lightning_ham/{model.task_name}",
            dataset_name=f"{model.task_name}, lengths {lengths}",
            dataset_config=lengths,  # the Hub takes results of one dataset and config for one
            dataset_args={
                "lengths": result["lengths"],
                "capacity": result["capacity"],
                "episodes": result["episodes"],
                "seed": evaluation["seed"],
            },
            metric_type=metric,
            metric_name=name,
            metric_value=value,
            source_name="W&B run" if wandb_url else None,
            source_url=wandb_url,
        )


def _versions(versions: Mapping[str, str]) -> str:
    """Return versions in words.

    >>> _versions({"python": "3.11.7", "torch": "2.13.0"})
    'Python 3.11.7, torch 2.13.0'
    """
    return ", ".join(f"{'Python' if name == 'python' else name} {version}" for name, version in versions.items())


def _cell(text: object) -> str:
    """Return text that stays within its cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def duration(seconds: float) -> str:
    """Return seconds in words.

    >>> duration(59.6), duration(754), duration(7380)
    ('60 s', '12 min 34 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
