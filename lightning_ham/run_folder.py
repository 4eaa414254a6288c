"""The files of a run folder, which ``fit`` writes and others read."""

from pathlib import Path

RECIPE = "recipe.yaml"
"""The resolved recipe."""
TRAINING = "training.json"
"""How the model was trained."""
EVALUATION = "evaluation.json"
"""Its errors; written last, so that where it is the run has ended."""
LAST = Path("checkpoints", "last.ckpt")
"""The checkpoint from which a training goes on."""
