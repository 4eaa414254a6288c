"""The supervision of a training in words, for cards, tables of results and the list of trained models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_ham.tasks import Task, find_task

TAG = "supervision:"
"""Prefix of the tags of a card that name a kind of supervision."""
MEANINGS = {
    "answers": "only the bits that are scored",
    "echo": "further outputs that repeat a part of the input or of the answer, never scored",
    "state": "further outputs that tell what state the memory is in, never scored",
    "hints": "further outputs, never scored",
    "branches": "in rounds after training, which way an operation goes at a node of known contents",
    "guide": "which leaf to attend to",
}
"""The kinds of supervision and their meanings, from the least to the most; ``hints`` are those of unknown kind."""


def supervision(task: Task[Any, Any] | str, hyper_parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the kinds of supervision that a training had: some of :data:`MEANINGS`, in their order.

    Every training has the answers; they are named only if there is nothing else.

    >>> supervision("add", {"model": {"supervision": {"hint_weight": 1.0, "guided_fraction": 0.5}}})
    ('echo', 'guide')
    >>> supervision("add", {"model": {"supervision": {"hint_weight": 0.0}}})
    ('answers',)

    Args:
        task: The task, or its name. If it is not installed, its hints are unknown: unless their weight is 0, the
            result is a guide or empty.
        hyper_parameters: Those in the record of the training.
    """
    known = find_task(task) if isinstance(task, str) else task
    kinds = {"guide"} if guided_fraction(hyper_parameters) > 0 else set()
    if _options(hyper_parameters).get("hint_weight", 1.0) > 0:
        if known is None:
            return tuple(kinds)
        if known.num_hints:
            kinds |= set(known.hint_kinds) & {"echo", "state"} or {"hints"}
    if hyper_parameters.get("certify", {}).get("rounds", 0) > 0:
        kinds.add("branches")
    return in_order(kinds) or ("answers",)


def guided_fraction(hyper_parameters: Mapping[str, Any]) -> float:
    """Return the share of a training's batches that were guided.

    >>> guided_fraction({"model": {"supervision": {"guided_fraction": 0.5}}}), guided_fraction({})
    (0.5, 0.0)
    """
    fraction: float = _options(hyper_parameters).get("guided_fraction", 0.0)
    return fraction


def _options(hyper_parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of a training's supervision; older records have them outside the group."""
    model = hyper_parameters.get("model", {})
    options: Mapping[str, Any] = model.get("supervision", model)
    return options


def in_order(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of supervision among some words, each once, in the order of :data:`MEANINGS`."""
    found = set(kinds)
    return tuple(kind for kind in MEANINGS if kind in found)


def in_words(kinds: Sequence[str]) -> str:
    """Return kinds of supervision as the text of a table's cell.

    >>> in_words(("answers",)), in_words(("echo", "state")), in_words(("echo", "state", "guide"))
    ('answers', 'echo and state', 'echo, state and guide')
    >>> in_words(())
    ''
    """
    *others, last = kinds or ("",)
    return f"{', '.join(others)} and {last}" if others else last


def explained(kinds: Sequence[str]) -> str:
    """Return sentences that explain kinds of supervision, in Markdown.

    >>> explained(("answers",))
    '*Supervision* is what training told the model beside the inputs. *Answers*: only the bits that are scored.'
    >>> explained(("guide",))
    '*Supervision* is what training told the model beside the inputs and the answers. *Guide*: which leaf to attend to.'
    """
    beside = "the inputs" if "answers" in kinds else "the inputs and the answers"
    meanings = " ".join(f"*{kind.capitalize()}*: {MEANINGS[kind]}." for kind in kinds)
    return f"*Supervision* is what training told the model beside {beside}. {meanings}"
