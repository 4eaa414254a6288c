"""Put a trained model among those of the package: ``python -m lightning_ham.bundle RUN_FOLDER NAME``.

For maintainers, in a checkout. The model goes to ``lightning_ham/hub/weights/NAME`` with the evaluation of its run, its
card also to ``model_cards/NAME.md``, and the run's evaluation and training as data to ``model_cards/NAME.json``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from lightning_ham.hub import HAMModel, from_pretrained

_CHECKOUT = Path(__file__).parent.parent


def bundle(run_dir: Path, name: str) -> Path:
    """Bundle the model of a run folder as ``name``; return the folder that it is in.

    Raises:
        FileNotFoundError: If this is no checkout, or the folder does not hold a finished run.
    """
    cards = _CHECKOUT / "model_cards"
    if not cards.is_dir():
        raise FileNotFoundError(f"Expected a checkout of lightning_ham with the folder {cards}, but it is not there.")
    record = {part: json.loads((run_dir / f"{part}.json").read_text()) for part in ("evaluation", "training")}
    model: HAMModel = from_pretrained(run_dir)
    target = _CHECKOUT / "lightning_ham" / "hub" / "weights" / name
    model.save(target, **record)
    (cards / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    shutil.copyfile(target / "README.md", cards / f"{name}.md")
    return target


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(f"Bundled in {bundle(Path(sys.argv[1]), sys.argv[2])}")
