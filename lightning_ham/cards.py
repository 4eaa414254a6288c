"""Write the cards of the bundled models anew: ``python -m lightning_ham.cards [--evaluate]``.

For maintainers, in a checkout. What is known of a model lies in ``model_cards/NAME.json``: the digest of its weights,
its evaluation and its training. From these, from the comparison models' results and from a template its card is made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from lightning_ham.command_line import CommandParser, run
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.card import TrainingInfo, render_card
from lightning_ham.hub.files import CARD
from lightning_ham.pictures import card_pictures
from lightning_ham.reproduction.records import (
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
from lightning_ham.training.evaluation import Evaluation, evaluate, table


class Record(TypedDict):
    """The contents of ``model_cards/NAME.json``."""

    weights_sha256: str
    """Of the weights that the rest was measured on."""
    evaluation: Evaluation
    training: TrainingInfo


def weights_folder(checkout: Path, name: str) -> Path:
    """Return the folder of a bundled model."""
    return checkout / "lightning_ham" / "hub" / "weights" / name


def write_card(checkout: Path, name: str, again: bool = False) -> Record:
    """Write the card of a bundled model: ``model_cards/NAME.md``, its pictures in ``model_cards/NAME``.

    ``README.md`` beside the weights, which is part of the package, is the same without pictures.

    Args:
        checkout: The checkout.
        name: Name of the model.
        again: Whether it is evaluated first, and that put into its record.

    Raises:
        ValueError: If the record is of other weights than those that are there.
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


def main(argv: Sequence[str] | None = None) -> int:
    """Write the cards; return the exit status."""
    parser = CommandParser(
        "cards", "Write the cards of bundled models from model_cards/NAME.json, results/ and a template."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which models (default: all that are bundled)")
    parser.add_argument(
        "--evaluate", action="store_true", help="measure the errors first; takes a minute for each model"
    )
    parser.add_argument("--output", type=Path, default=CHECKOUT, metavar="DIR", help="the checkout (default: this one)")
    arguments = parser.parse(argv)
    checkout = arguments.output
    try:
        check_checkout(checkout)
    except OSError as error:
        parser.error(str(error))
    names: list[Any] = arguments.names or sorted(path.stem for path in (checkout / "model_cards").glob("*.json"))
    try:
        for name in names:
            record = write_card(checkout, name, arguments.evaluate)
            if arguments.evaluate:
                print(table(record["evaluation"]), flush=True)
            print(f"Wrote {checkout / 'model_cards' / name}.md", flush=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    run(main)
