"""The bundled models and their cards, made from ``model_cards/NAME.json``.

This file holds the digest of a model's weights, its evaluation and its training.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TypedDict

from lightning_ham.evaluation import Evaluation, evaluate
from lightning_ham.hub import TrainedModel, from_pretrained
from lightning_ham.hub.card import TrainingInfo, render_card
from lightning_ham.hub.card_pictures import card_pictures
from lightning_ham.hub.files import CARD
from lightning_ham.reproduction.records import (
    CARDS,
    CHECKOUT,
    EPISODES,
    FOLDER,
    RANGES,
    check_checkout,
    comparisons,
    read_results,
    sha256,
)
from lightning_ham.runs.folder import write_json


class Record(TypedDict):
    """The contents of ``model_cards/NAME.json``."""

    weights_sha256: str
    """SHA-256 of the evaluated weights."""
    evaluation: Evaluation
    training: TrainingInfo


def weights_folder(checkout: Path, name: str) -> Path:
    """Return the folder of a bundled model."""
    return checkout / "lightning_ham" / "hub" / "weights" / name


def write_card(checkout: Path, name: str, again: bool = False) -> Record:
    """Write the card of a bundled model: ``model_cards/NAME.md``, its pictures in ``model_cards/NAME``.

    ``README.md`` beside the weights, in the package, is the same without pictures.

    Args:
        checkout: The checkout.
        name: Name of the model.
        again: Whether to evaluate the model first, and update its record.

    Raises:
        ValueError: If the record belongs to other weights.
    """
    folder, record_file = weights_folder(checkout, name), checkout / "model_cards" / f"{name}.json"
    record: Record = json.loads(record_file.read_text(encoding="utf-8"))
    found = sha256(folder / "model.safetensors")
    if record["weights_sha256"] != found:
        raise ValueError(
            f"Expected weights with the SHA-256 {record['weights_sha256']} that {record_file} is of, but {folder} has "
            f"{found}; bundle the model's run again."
        )
    model = TrainedModel.from_folder(folder)
    if again:
        record["evaluation"] = evaluate(model, RANGES, EPISODES, seed=0)
        write_json(record_file, record)
    evaluation, training = record["evaluation"], record["training"]
    others = comparisons(read_results(checkout / FOLDER), model.task_name)
    gallery = checkout / "model_cards" / name
    shutil.rmtree(gallery, ignore_errors=True)
    gallery.mkdir()
    for picture, content in card_pictures(model, training["curve"]).items():
        (gallery / picture).write_bytes(content)
    links = {picture.name: f"{name}/{picture.name}" for picture in sorted(gallery.iterdir())}
    for path, pictures in ((folder / CARD, {}), (checkout / "model_cards" / f"{name}.md", links)):
        path.write_bytes(render_card(model, name, evaluation, training, others, pictures).encode())
    return record


def recorded_names(checkout: Path) -> list[str]:
    """Return the names of the models that have a record, sorted."""
    return sorted(path.stem for path in (checkout / CARDS).glob("*.json"))


def bundle(run_dir: Path, name: str, checkout: Path = CHECKOUT) -> Path:
    """Bundle the model of a run folder as ``name``; return its new folder.

    Raises:
        FileNotFoundError: If this is not a checkout, or the folder does not hold a finished run.
    """
    check_checkout(checkout)
    evaluation, training = (json.loads((run_dir / f"{part}.json").read_text()) for part in ("evaluation", "training"))
    model: TrainedModel = from_pretrained(run_dir)
    target = weights_folder(checkout, name)
    model.save_pretrained(target, evaluation, training)
    record: Record = {
        "weights_sha256": sha256(target / "model.safetensors"),
        "evaluation": evaluation,
        "training": training,
    }
    write_json(checkout / CARDS / f"{name}.json", record)
    write_card(checkout, name)
    return target
