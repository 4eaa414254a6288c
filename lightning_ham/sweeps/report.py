"""The report of a sweep: tables of all trials, pictures, and the best recipe."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from lightning_ham.evaluation.record import describe_versions
from lightning_ham.foreign import shown
from lightning_ham.hub.card import duration
from lightning_ham.output_files import write
from lightning_ham.pictures.sweep import Outcome, draw_history, draw_importance
from lightning_ham.reproduction.report import table
from lightning_ham.runs.provenance import commit
from lightning_ham.runs.recipe.cli import RecipeCLI
from lightning_ham.runs.recipe.space import override
from lightning_ham.sweeps.objective import Goal, Judged, in_words, judge, median
from lightning_ham.sweeps.plan import Plan, without_password
from lightning_ham.sweeps.study import first_number, latest
from lightning_ham.sweeps.trials import NOTE, TRAININGS

BEST = "best.yaml"
"""The best recipe."""
_FEWEST_FOR_IMPORTANCE = 4
_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "to be resumed",
}


def judged(trial: FrozenTrial, goal: Goal) -> Judged:
    """Return how the median training of a trial is judged, of those that it has so far."""
    trainings = cast(list[Judged], trial.user_attrs.get(TRAININGS) or [])
    return median(trainings) if trainings else judge([], goal, 0)


def describe(trial: FrozenTrial, plan: Plan) -> str:
    """Describe a trial in a line: its result, and its values."""
    result = in_words(judged(trial, plan.goal), plan.goal)
    note = trial.user_attrs.get(NOTE)
    state = {TrialState.FAIL: "FAILED", TrialState.PRUNED: "pruned"}.get(trial.state, "")
    values = ", ".join(f"{key} {_shown(value)}" for key, value in trial.params.items())
    words = "; ".join(part for part in (state, note, result, values) if part)
    return f"trial {first_number(trial)}: {words}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_tables(plan: Plan, study: optuna.Study) -> list[Path]:
    """Write the tables of all trials; return their paths."""
    trials = _in_order(study)
    return _write(plan, {"trials.csv": _csv(trials, plan), "trials.md": _markdown(trials, plan)})


def write_best(plan: Plan, study: optuna.Study) -> list[Path]:
    """Write the best recipe, if a trial has finished; return its path."""
    trials = _in_order(study)
    best = best_of(trials)
    return [] if best is None else _write(plan, {BEST: best_recipe(best, plan, len(trials))})


def write_pictures(plan: Plan, study: optuna.Study) -> list[Path]:
    """Write the pictures of history and importance, as far as there is anything to show; return their paths."""
    outcomes = [
        Outcome(first_number(trial), trial.value, is_pruned=trial.state == TrialState.PRUNED)
        for trial in _in_order(study)
        if trial.value is not None
    ]
    pictures = {}
    if outcomes:
        pictures["history.png"] = draw_history(outcomes, plan.goal.capacity, plan.name)
    importance = importances(study)
    if importance:
        pictures["importance.png"] = draw_importance(importance, plan.name)
    return _write(plan, pictures)


def best_of(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """Return the finished trial with the lowest value; None if none has finished."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return min(finished, key=lambda trial: trial.values[0], default=None)


def _in_order(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for _, trial in sorted(latest(study.get_trials(deepcopy=False)).items())]


def _write(plan: Plan, contents: Mapping[str, str | bytes]) -> list[Path]:
    for name, content in contents.items():
        write(str(plan.folder / name), content)
    return [plan.folder / name for name in contents]


def _rows(trials: list[FrozenTrial], plan: Plan) -> list[dict[str, Any]]:
    """Return a row for every trial, by the names of columns."""
    rows = []
    for trial in trials:
        result = judged(trial, plan.goal)
        trainings = cast(list[Judged], trial.user_attrs.get(TRAININGS) or [])
        is_solved = trial.state == TrialState.COMPLETE and result["solved"]
        rows.append(
            {
                "trial": first_number(trial),
                "state": "solved" if is_solved else _STATES[trial.state],
                "value": trial.value,
                "leaves": result["capacity"],
                "wrong": result["error"],
                "episodes": result["episodes"],
                "updates": result["updates"],
                "seconds": round(sum(training["seconds"] for training in trainings)),
                "seeds": " ".join(str(training["seed"]) for training in trainings),
                **{key: trial.params.get(key) for key in plan.space},
                "note": trial.user_attrs.get(NOTE) or "",
            }
        )
    return rows


def _csv(trials: list[FrozenTrial], plan: Plan) -> str:
    text = io.StringIO()
    rows = _rows(trials, plan)
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _markdown(trials: list[FrozenTrial], plan: Plan) -> str:
    """Return the table in Markdown, the best trials first."""

    def place(row: dict[str, Any]) -> tuple[bool, bool, float]:
        return row["state"] not in ("solved", "finished"), row["value"] is None, row["value"] or 0.0

    order = sorted(_rows(trials, plan), key=place)
    keys = list(plan.space)
    header = ["trial", "state", "value", "leaves", "wrong", "episodes", "time", *(f"`{key}`" for key in keys), "note"]
    cells = [
        [
            str(row["trial"]),
            row["state"],
            "" if row["value"] is None else f"{row['value']:.4f}",
            f"{row['leaves']} of {plan.goal.capacity}",
            f"{100 * row['wrong']:.3g} %",
            f"{row['episodes']:,}",
            duration(row["seconds"]),
            *("" if row[key] is None else _shown(row[key]).replace("|", "\\|") for key in keys),
            row["note"].replace("|", "\\|"),
        ]
        for row in order
    ]
    title = f"# Sweep {plan.name}\n\n{_about(plan)}\n"
    return f"{title}\n{table(header, cells)}\n"


def _about(plan: Plan) -> str:
    seeds = ", ".join(map(str, plan.seeds))
    judged_by = "the median of seeds" if len(plan.seeds) > 1 else "seed"
    return (
        f"Values by {plan.search.sampler}, pruning by {plan.search.pruner}; judged by {judged_by} {seeds}. A value "
        "below 0 means that the bar was met (the fewer episodes, the lower); any other is the doublings of leaves that "
        "were left plus the share of wrong sequences."
    )


def best_recipe(trial: FrozenTrial, plan: Plan, trials: int) -> str:
    """Return the recipe of a trial with all its keys, headed by where it comes from; its seed is the median one."""
    result = judged(trial, plan.goal)
    values = [override(key, value) for key, value in trial.params.items()]
    cli = RecipeCLI(plan.recipe, [*plan.overrides, *values, f"--seed_everything={result['seed']}"])
    versions = ", ".join(f"{name} {version}" for name, version in describe_versions().items())
    header = [
        f"The best recipe of {trials} trials of the sweep {plan.name}: trial {first_number(trial)}.",
        "",
        f"Train: {shlex.join(['python', '-m', 'lightning_ham.fit', str(plan.folder / BEST)])}",
        f"Sweep: {shlex.join(['python', '-m', 'lightning_ham.sweep', *plan.words])}",
        f"Result: {in_words(result, plan.goal)} in {duration(result['seconds'])}; {_judged_by(plan, result)}",
        f"Values: {' '.join(map(shlex.quote, values))}",
        f"Storage: {without_password(plan.storage)}",
        f"Versions: {versions}, optuna {optuna.__version__}; commit {commit() or 'unknown'}",
    ]
    lines = [f"# {shown(line, 2000)}".rstrip() if line else "#" for line in header]
    return "\n".join([*lines, *_without_place(cli.resolved()).splitlines(), ""])


def _judged_by(plan: Plan, result: Mapping[str, Any]) -> str:
    return f"seed {result['seed']}" + (f", the median of {len(plan.seeds)}" if len(plan.seeds) > 1 else "")


def _without_place(recipe: str) -> str:
    """Return a recipe without a run folder, so that its training gets a new one."""
    content = yaml.safe_load(recipe)
    content["run_dir"] = None
    return yaml.safe_dump(content, sort_keys=False)


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the share of each key in the differences between finished trials (PED-ANOVA); empty if too few."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = {trial.value for trial in finished}
    if len(finished) < _FEWEST_FOR_IMPORTANCE or len(values) < 2:
        return {}
    return optuna.importance.get_param_importances(study)
