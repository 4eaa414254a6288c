"""Stands for ``python -m lightning_ham.fit`` in tests of sweeps: writes the files of a training, and learns nothing.

The higher its learning rate, the better it is: after 10 epochs, 1 - 100 times it is wrong. Some sizes of batches fail.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

EPOCHS = 10
HEADER = "epoch,step,val/current/sequence_error,val/1-2/sequence_error,curriculum/capacity,train/episodes,train/seconds"


def train(arguments: list[str]) -> None:
    options = dict(word.removeprefix("--").partition("=")[::2] for word in arguments[1:])
    run_dir = Path(options["run_dir"])
    last, recipe = run_dir / "checkpoints" / "last.ckpt", run_dir / "recipe.yaml"
    last.parent.mkdir(parents=True, exist_ok=True)
    with (run_dir / "starts").open("a") as file:
        print(os.getpid(), *arguments, file=file)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    batch_size = options.get("data.batch_size")
    if batch_size == "13":
        print("error: Expected a lucky number, but got 13.", file=sys.stderr)
        sys.exit(2)
    first = 0
    if options.get("ckpt_path") == "last":
        first, options = int(last.read_text()), json.loads(recipe.read_text())
    elif last.exists():
        sys.exit("error: there is a run already")
    recipe.write_text(json.dumps(options))

    metrics = run_dir / "metrics" / f"version_{len(list(run_dir.glob('metrics/*')))}" / "metrics.csv"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(f"{HEADER}\n")
    for epoch in range(first, EPOCHS):
        time.sleep(float(os.environ.get("PACE", "0")))
        if batch_size == "14" and epoch == 3:
            print("error: Expected finite weights, but got nan or inf at update 3", file=sys.stderr)
            sys.exit(1)
        error = max(0.0, 1 - 100 * float(options["model.schedule.learning_rate"]) * (epoch + 1) / EPOCHS)
        with metrics.open("a") as file:
            print(epoch, epoch, error, error, 2, 1000 * (epoch + 1), epoch + 1, sep=",", file=file)
        last.write_text(str(epoch + 1))
    (run_dir / "evaluation.json").write_text("{}")


if __name__ == "__main__":
    train(sys.argv[1:])
