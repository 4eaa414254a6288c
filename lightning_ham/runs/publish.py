"""Publishes the model of a run on the Hub, with a card made from the run folder."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path
from typing import cast

import yaml

from lightning_ham.evaluation import Evaluation, evaluate
from lightning_ham.hub.card import TrainingInfo, is_complete
from lightning_ham.hub.files import PICTURES, saved
from lightning_ham.hub.places import locate
from lightning_ham.hub.pretrained import TrainedModel
from lightning_ham.hub.push import check_name, check_token, push_folder
from lightning_ham.runs.folder import EVALUATION, RECIPE, TRAINING, Claim, read_json, write_json
from lightning_ham.runs.recipe.options import EvaluationOptions
from lightning_ham.tasks import Lengths

_LOG = logging.getLogger("lightning_ham")


def push_run(
    run_dir: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    endpoint: str | None = None,
) -> str:
    """Publish the model of a run folder, with the run's results in its card; return its address.

    Arguments and errors are those of :meth:`lightning_ham.hub.TrainedModel.push_to_hub`.
    """
    check_name(repo_id)
    check_token(repo_id)
    if not run_dir.exists():
        raise FileNotFoundError(f"Expected a run folder to push, but there is no {run_dir}.")
    source, _ = locate(run_dir)
    run = _run_of(source)
    model = TrainedModel.from_checkpoint(source) if source.is_file() else TrainedModel.from_folder(source)
    evaluation = _evaluation(model, run)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "model")
        files = {name: saved(source, name) for name in PICTURES}
        pictures = {name: file.read_bytes() for name, file in files.items() if file.is_file()}
        model.save_pretrained(folder, evaluation, _training(run) if run else None, name=repo_id, pictures=pictures)
        return push_folder(
            folder,
            repo_id,
            private=private,
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
            endpoint=endpoint,
        )


def _run_of(source: Path) -> Path | None:
    """Return the run folder of a saved model or a checkpoint; None if there is none."""
    folder = source.parent if source.is_dir() else source.parent.parent
    return folder if (folder / TRAINING).is_file() else None


def _evaluation(model: TrainedModel, run: Path | None) -> Evaluation:
    """Return the run folder's evaluation of these weights; if there is none, evaluate them, and save it there."""
    weights = model.weights_sha256()
    found = read_json(run / EVALUATION) if run else {}
    if found.get("weights_sha256") == weights:
        return cast(Evaluation, found)
    options = _options(run) if run else EvaluationOptions()
    _LOG.info("Evaluating the model first, on lengths %s", ", ".join(map(str, options.lengths)))
    evaluation = evaluate(model, options.lengths, options.episodes, options.seed)
    evaluation["weights_sha256"] = weights
    if run and _training(run):  # a further push then changes nothing; an unfinished run must not look finished
        with contextlib.suppress(OSError), Claim(run):
            write_json(run / EVALUATION, evaluation)
    return evaluation


def _options(run: Path) -> EvaluationOptions:
    """Return the options of evaluation in a run's recipe; by default the paper's protocol."""
    recipe = run / RECIPE
    if not recipe.is_file():
        return EvaluationOptions()
    try:
        options = yaml.safe_load(recipe.read_text(encoding="utf-8"))["evaluation"]
        spans = [Lengths.of(span) for span in options["lengths"]]
        return EvaluationOptions(spans, options["episodes"], options["seed"])
    except (LookupError, TypeError, ValueError, yaml.YAMLError):
        _LOG.warning("%s does not say how to evaluate the model; the paper's protocol it is.", recipe)
        return EvaluationOptions()


def _training(run: Path) -> TrainingInfo | None:
    """Return the facts about the training in a run folder; None if it has not finished."""
    found = read_json(run / TRAINING)
    return cast(TrainingInfo, found) if is_complete(found) else None
