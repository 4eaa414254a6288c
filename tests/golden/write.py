"""Write the golden models of this version: ``python tests/golden/write.py``, once for each release.

Each is a tiny saved model with instances, its answers and its logits. tests/test_golden.py checks that every later
version loads it and answers alike. Files of former versions are never written again.
"""

import json
import sys
from itertools import count
from pathlib import Path

import torch

from lightning_ham import __version__
from lightning_ham.hub import TrainedModel
from lightning_ham.hub.files import CARD
from lightning_ham.tasks import built_in_tasks, get_task

FOLDER = Path(__file__).parent
SMALL = {"controller_size": 5, "leaf_size": 6}
RAW = {"leaf_size": 6, "hidden_size": 7}
MODELS = {
    **{task.name: (task.name, "lstm_ham", SMALL) for task in built_in_tasks()},
    "raw": ("priority_queue", "raw_ham", RAW),
    "raw-grid": ("queue", "raw_ham", RAW | {"grid": 0.25, "join": "choice"}),
    "join-mlp": ("sort", "lstm_ham", SMALL | {"join": "mlp", "hidden_size": 9}),
    "join-choice": ("merge", "lstm_ham", SMALL | {"join": "choice", "real_inputs": 1, "readout": "read"}),
    "two-accesses": ("reverse", "lstm_ham", SMALL | {"accesses_per_output": 2, "readout": "state"}),
    "lstm": ("sort", "lstm", {"controller_size": 5}),
    "lstm-attention": ("sort", "lstm_attention", {"controller_size": 5}),
}
"""Task, controller and options of each."""
MARGIN = 1e-3
"""Every branch and bit of a golden model is this clear at least, so that rounding changes none."""


@torch.inference_mode()
def logits(model: TrainedModel, instance: object) -> torch.Tensor:
    """The logits of the outputs for an instance, ``[timesteps, output_size]``."""
    episodes = model.task.encode([instance])
    return model(episodes).outputs[0]


@torch.inference_mode()
def is_clear(model: TrainedModel, instance: object) -> bool:
    """Whether no branch and no bit is close to being decided otherwise."""
    rollout = model(model.task.encode([instance]))
    branches = torch.logit(rollout.branch_probs.double(), eps=1e-9)
    return all(values.abs().min() > MARGIN for values in (rollout.outputs, branches) if values.numel())


def write(name: str) -> None:
    task_name, controller, options = MODELS[name]
    task = get_task(task_name)
    episodes = task.sample(6, (task.min_length, 12), generator=torch.Generator().manual_seed(0))
    instances = [task.decode_inputs(*row) for row in zip(episodes.inputs, episodes.occupied, strict=True)]
    for seed in count():
        torch.manual_seed(seed)
        model = TrainedModel(task_name, controller, options)
        for parameter in model.parameters():
            parameter.data *= 3  # else almost all answers are alike
        answers = {json.dumps(answer) for answer in model.eval().solve(instances)}
        if len(answers - {"[]"}) > 1 and all(is_clear(model, instance) for instance in instances):
            break
    folder = FOLDER / __version__ / name
    model.save_pretrained(folder)
    (folder / CARD).unlink()
    golden = {
        "instances": instances,
        "answers": model.solve(instances),
        "logits": [logits(model, instance).tolist() for instance in instances],
    }
    (folder / "golden.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if (FOLDER / __version__).exists():
        sys.exit(f"Expected no golden models of {__version__} yet, but {FOLDER / __version__} is there.")
    for each in MODELS:
        write(each)
