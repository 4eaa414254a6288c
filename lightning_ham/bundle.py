"""Put a trained model among those of the package: ``python -m lightning_ham.bundle RUN_FOLDER NAME``.

For maintainers, in a checkout. The model goes to ``lightning_ham/hub/weights/NAME``, the evaluation and the training of
its run to ``model_cards/NAME.json``, and its card, which is made from these, to both places.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.cards import Record, weights_folder, write_card
from lightning_ham.command_line import CommandParser, run
from lightning_ham.hub import TrainedModel, from_pretrained
from lightning_ham.reproduction.records import CARDS, CHECKOUT, check_checkout, sha256
from lightning_ham.runs.folder import write_json


def bundle(run_dir: Path, name: str, checkout: Path = CHECKOUT) -> Path:
    """Bundle the model of a run folder as ``name``; return the folder that it is in.

    Raises:
        FileNotFoundError: If this is no checkout, or the folder does not hold a finished run.
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


def main(argv: Sequence[str] | None = None) -> int:
    """Bundle as the command line says; return the exit status."""
    parser = CommandParser(
        "bundle",
        "Put the model of a run folder among those of the package, and its card and what was measured of it into\n"
        "model_cards/.",
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help="of a training that has ended")
    parser.add_argument("name", metavar="NAME", help="what the model is loaded by, such as ham-sort")
    parser.add_argument("--output", type=Path, default=CHECKOUT, metavar="DIR", help="the checkout (default: this one)")
    arguments = parser.parse(argv)
    try:
        target = bundle(arguments.run_folder, arguments.name, arguments.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write(f"Bundled in {target}\n")
    return 0


if __name__ == "__main__":
    run(main)
