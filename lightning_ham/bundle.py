"""Put a trained model among those of the package: ``python -m lightning_ham.bundle RUN_FOLDER NAME``.

For maintainers, in a checkout. The model goes to ``lightning_ham/hub/weights/NAME``, the evaluation and the training of
its run to ``model_cards/NAME.json``, and its card, which is made from these, to both places.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lightning_ham.cards import Record, weights_folder, write_card
from lightning_ham.hub import HAMModel, from_pretrained
from lightning_ham.reproduction.records import CHECKOUT, sha256, write_json


def bundle(run_dir: Path, name: str, checkout: Path = CHECKOUT) -> Path:
    """Bundle the model of a run folder as ``name``; return the folder that it is in.

    Raises:
        FileNotFoundError: If this is no checkout, or the folder does not hold a finished run.
    """
    cards = checkout / "model_cards"
    if not cards.is_dir():
        raise FileNotFoundError(f"Expected a checkout of lightning_ham with the folder {cards}, but it is not there.")
    evaluation, training = (json.loads((run_dir / f"{part}.json").read_text()) for part in ("evaluation", "training"))
    model: HAMModel = from_pretrained(run_dir)
    target = weights_folder(checkout, name)
    model.save(target, evaluation, training)
    record: Record = {
        "weights_sha256": sha256(target / "model.safetensors"),
        "evaluation": evaluation,
        "training": training,
    }
    write_json(cards / f"{name}.json", record)
    write_card(checkout, name)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(f"Bundled in {bundle(Path(sys.argv[1]), sys.argv[2])}")
