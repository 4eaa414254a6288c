"""The card of a model (``README.md``): a template filled with measured results."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

import torch
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from jinja2 import Environment, StrictUndefined

from lightning_ham.evaluation.bars import missed
from lightning_ham.evaluation.record import Evaluation, LengthResult, errors_by_lengths, span
from lightning_ham.evaluation.words import mistakes_in_words, percent, share_in_words
from lightning_ham.hub.dataset import SPLIT, dataset_id
from lightning_ham.hub.supervision import TAG, explained, guided_fraction, in_words, supervision
from lightning_ham.models import TaskModel
from lightning_ham.pictures.curve import CurvePoint

_IN_PACKAGE = Path(__file__).with_name("card.md.jinja")
TEMPLATE = _IN_PACKAGE if _IN_PACKAGE.is_file() else Path(__file__).parents[2] / "model_cards" / "card.md.jinja"
"""In the package if installed from a wheel; in ``model_cards/`` of a checkout."""


class Comparison(NamedTuple):
    """Another model for the same task, for comparison on a card."""

    title: str
    num_parameters: int
    errors: dict[str, float]
    """Share of wrong sequences, in [0, 1], by lengths, such as ``1-32``."""


class _AlwaysKnown(TypedDict):
    """Facts about every training."""

    recipe: str
    command: str
    seed: int
    updates: int
    episodes: int
    seconds: float
    machine: str
    versions: dict[str, str]
    commit: str | None
    """Commit of the checkout that trained it, with ``-dirty`` if it had changes; None without a checkout."""
    wandb_url: str | None
    """Address of the W&B run; None if not logged online."""
    curve: list[CurvePoint]
    hyper_parameters: dict[str, Any]


class TrainingInfo(_AlwaysKnown, total=False):
    """How a model was trained, as plain data."""

    bar: dict[str, float]
    """Highest accepted share of wrong sequences, by lengths; empty or missing if the recipe had no bar."""


def is_complete(training: Mapping[str, Any]) -> bool:
    """Return whether ``training`` has exactly the keys of a :class:`TrainingInfo`."""
    return (
        TrainingInfo.__required_keys__
        <= training.keys()
        <= TrainingInfo.__required_keys__ | TrainingInfo.__optional_keys__
    )


def missed_bar(
    bar: Mapping[str, float], evaluation: Evaluation, curve: Sequence[CurvePoint]
) -> dict[str, float | None]:
    """Return the errors above the bar, by lengths; None where no error was measured.

    Args:
        bar: Highest accepted share of wrong sequences, by lengths.
        evaluation: The preferred source of errors.
        curve: The validations; at lengths that were not evaluated, the last one counts.
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
        model: The model; it answers the card's example.
        load_name: The name that the example loads.
        evaluation: Result of :func:`lightning_ham.evaluation.evaluate` on this model, if any.
        training: Facts about the model's training, if known.
        comparisons: Other models for the same task.
        pictures: Links to the card's pictures, by name: ``learning_curve.png``, ``attention.png``.
        is_folder: Whether ``load_name`` is the name of the card's own folder, rather than a name that
            :func:`lightning_ham.from_pretrained` knows everywhere.

    Raises:
        ValueError: If the evaluation belongs to another model, or a key of ``training`` is missing or unknown.
    """
    if evaluation is not None:
        _check_evaluation(model, evaluation)
    if training is not None and not is_complete(training):
        expected, got = ", ".join(TrainingInfo.__annotations__), ", ".join(training)
        raise ValueError(f"Expected argument `training` to have the keys {expected}, but got {got}.")
    documentation = inspect.cleandoc(type(model.task).__doc__ or f"The task {model.task_name}.")
    controller = inspect.cleandoc(type(model.controller).__doc__ or "").partition("\n\n")[0]
    instance = example(model)
    certificate = getattr(model, "certificate", None)
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
        certificate=certificate,
        missed=missed_bar(training.get("bar", {}), evaluation, training["curve"]) if training and evaluation else {},
        trained_length=training["hyper_parameters"].get("data", {}).get("capacity") if training else None,
        supervision=kinds,
        guided_fraction=guided_fraction(training["hyper_parameters"]) if training else 0,
        hyper_parameters=json.dumps(training["hyper_parameters"], indent=2) if training else "",
        pictures=pictures or {},
    )
    card = f"---\n{_metadata(model, evaluation, training, kinds).to_yaml()}\n---\n\n{body}"
    # Names of files may not be valid text: undecodable bytes are read as UTF-8, or shown as \\xe9.
    return card.encode(errors="surrogateescape").decode(errors="backslashreplace")


def example(model: TaskModel) -> Any:
    """Return a small instance of the model's task, always the same."""
    task = model.task
    length = task.min_length + 3 * task.length_step
    episodes = task.sample(1, (length, length), generator=torch.Generator().manual_seed(0))
    return _rounded(task.decode_inputs(episodes.inputs[0], episodes.occupied[0]))


def _rounded(instance: Any) -> Any:
    """Return an instance with real numbers rounded to three digits."""
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
    """Return the name of a model: ``ham-...`` only if it has a memory."""
    kind = "ham" if model.accesses_per_output > 0 else model.controller_name
    return f"{kind}-{model.task_name}".replace("_", "-")


def _beside(model: TaskModel, evaluation: Evaluation, comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Return the header and rows of a table: errors of the model, of others and of the paper; empty without others."""
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
            f"task:{model.task_name}",
            *(f"{TAG}{kind}" for kind in kinds),
            *(["certified"] if model.is_certified else []),
        ],
        model_name=_name(model) if results else None,
        eval_results=results or None,
    )


def _metrics(
    model: TaskModel, evaluation: Evaluation, result: LengthResult, wandb_url: str | None
) -> Iterator[EvalResult]:
    """Yield the errors for one range of lengths, as shares in [0, 1], in the form of the Hub's model index."""
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
            dataset_type=dataset_id(model.task_name),
            dataset_name=f"{model.task_name}, lengths {lengths}",
            dataset_config=lengths,  # the Hub merges results with the same dataset and config
            dataset_split=SPLIT,
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


def eval_results(card: str) -> str:
    """Return the results in a card's metadata in the form of ``.eval_results/*.yaml``; "" if it has none.

    There, a result is the share of right sequences, as benchmarks on the Hub rank higher values first. Results on a
    task of another package are left out: their episodes have no known dataset on the Hub.

    Args:
        card: The text of the card.
    """
    entries = []
    for result in cast(ModelCardData, ModelCard(card).data).eval_results or []:
        lengths, arguments = result.dataset_config, result.dataset_args
        if result.metric_type != "sequence_error" or "/" not in result.dataset_type or not (lengths and arguments):
            continue
        entry = EvalResultEntry(
            dataset_id=result.dataset_type,
            task_id=lengths,
            value=1 - result.metric_value,
            source_url=result.source_url,
            source_name=result.source_name,
            notes=f"share of right sequences, {arguments['episodes']:,} episodes",
        )
        entries.append(entry)
    text: str = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False) if entries else ""
    return text


def _versions(versions: Mapping[str, str]) -> str:
    """Return versions in words.

    >>> _versions({"python": "3.11.7", "torch": "2.13.0"})
    'Python 3.11.7, torch 2.13.0'
    """
    return ", ".join(f"{'Python' if name == 'python' else name} {version}" for name, version in versions.items())


def _cell(text: object) -> str:
    """Return text in the form of a cell of a Markdown table."""
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
