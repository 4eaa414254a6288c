"""Seconds of training until a task is solved, over several seeds; and how wrong the peers are after the same seconds.

Solved: of 2,500 fresh episodes at lengths 1-32, at most 0.1 % are wrong, by the paper's protocol. Ours are trained by
`fit` with the recipe as it is, but for its bar, which becomes this one. Every outcome is written as soon as it is
known, and one that is known is not measured again: the benchmark can be ended at any time, and started again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.report import ROOT, Result, Save, positive, progress, read, rounded, run, table
from lightning_ham.tasks.registry import built_in_tasks, get_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTION = "Seconds of training until 2,500 fresh episodes at lengths 1-32 have at most 0.1 % wrong."
OURS = "lstm_ham"
PEERS = ("lstm_attention", "torch_lstm")
ATTEMPTS = 5
PEER_MARK = "--peer"


class Bar(NamedTuple):
    """What counts as solved, and on what."""

    longest: int = 32
    episodes: int = 2500
    error: float = 0.001
    batches_per_epoch: int = 50


QUICK = Bar(longest=2, episodes=64, error=1.0, batches_per_epoch=2)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="default: all; quick: reverse")
    parser.add_argument("--seeds", nargs="+", type=positive, metavar="N", help="default: 1 2 3 4 5; quick: 1")
    parser.add_argument(
        "--peers",
        nargs="*",
        metavar="NAME",
        help=f"default: {' '.join(PEERS)} for the tasks that the paper has them for, none for others",
    )
    parser.add_argument(
        "--budget_minutes", type=float, default=60.0, metavar="M", help="most that one training may take (default: 60)"
    )
    parser.add_argument("--again", action="store_true", help="measure again what the result has already")


def measure(options: argparse.Namespace, save: Save) -> Result:
    """Train what is not known yet, one after the other."""
    bar = QUICK if options.quick else Bar()
    tasks = options.tasks or (["reverse"] if options.quick else [task.name for task in built_in_tasks()])
    seeds = options.seeds or ([1] if options.quick else [1, 2, 3, 4, 5])
    earlier = None if options.again else read("time_to_solve", options.output)
    same = earlier is not None and earlier["bar"] == bar._asdict() and earlier["threads"] == options.threads
    rows = earlier["rows"] if earlier is not None and same else []
    result: Result = {"bar": bar._asdict(), "budget_minutes": options.budget_minutes, "rows": rows, "summary": []}

    def add(row: Result) -> Result:
        rows.append(row)
        result["summary"] = summarize(rows)
        save(result)
        return row

    for seed in seeds:  # the tasks in turns, so that a drift of the machine hits all alike
        for task in tasks:
            ours = known(rows, OURS, task, seed)
            if ours is None:
                progress(f"{task}, seed {seed}: {OURS} ...")
                ours = add(train_ours(task, seed, bar, options.threads, 60 * options.budget_minutes))
            for peer in peers_for(task) if options.peers is None else options.peers:
                if known(rows, peer, task, seed) is None:
                    progress(f"{task}, seed {seed}: {peer} for {ours['seconds']:.0f} s ...")
                    add(train_peer(peer, task, seed, bar, options.threads, ours["seconds"]))
    result["summary"] = summarize(rows)
    return result


def peers_for(task: str) -> tuple[str, ...]:
    """The networks that the paper holds HAM against on a task: none on data structures."""
    has_figures = any("lstm" in errors for errors in get_task(task).paper_errors.values())
    return PEERS if has_figures else ()


def known(rows: list[Result], name: str, task: str, seed: int) -> Result | None:
    """The row of a training that was done before."""
    wanted = (name, task, seed)
    return next((row for row in rows if (row["network"], row["task"], row["seed"]) == wanted), None)


def train_ours(task: str, seed: int, bar: Bar, threads: int, budget_s: float) -> Result:
    """Train by the recipe up to the bar on validation episodes, then hold it against fresh ones; else go on."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder, "run")
        updates = -1
        for attempt in range(ATTEMPTS):
            fit(task, run_dir, seed, bar, threads, budget_s, attempt)
            training = json.loads((run_dir / "training.json").read_text())
            results = json.loads((run_dir / "evaluation.json").read_text())["results"]
            measured = results[0]  # the paper's protocol; a recipe may have others after it
            solved = measured["sequence_error"] <= bar.error
            if solved or training["updates"] == updates:  # nothing is left to train
                break
            updates = training["updates"]
            progress(f"{measured['wrong_sequences']} of {measured['episodes']} fresh episodes are wrong: going on")
    return {
        "network": OURS,
        "task": task,
        "seed": seed,
        "seconds": training["seconds"],
        "solved": solved,
        "wrong": measured["wrong_sequences"],
        "of": measured["episodes"],
        "evaluations": attempt + 1,
        "updates": training["updates"],
        "episodes": training["episodes"],
    }


def fit(task: str, run_dir: Path, seed: int, bar: Bar, threads: int, budget_s: float, attempt: int) -> None:
    """Run `fit` from the beginning or, after the first attempt, from where it ended."""
    overrides: dict[str, Any] = {
        "seed_everything": seed,
        "run_dir": run_dir,
        "threads": threads,
        "wandb.mode": "disabled",
        "data.capacity": bar.longest,
        "data.validation_lengths": [[1, bar.longest]],
        "data.validation_episodes": bar.episodes,
        "stop.errors": json.dumps({f"1-{bar.longest}": bar.error}),
        "stop.patience": 1,
        "trainer.max_time": json.dumps({"seconds": round(budget_s)}),
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
        "evaluation.lengths": [[1, bar.longest]],
        "evaluation.episodes": bar.episodes,
        "evaluation.seed": attempt,  # episodes that no earlier attempt was held against
    }
    if bar == QUICK:
        overrides["data.batches_per_epoch"] = bar.batches_per_epoch
    if attempt:
        overrides["ckpt_path"] = "last"
    arguments = [text for key, value in overrides.items() for text in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "lightning_ham.fit", task, *arguments]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)


def train_peer(name: str, task: str, seed: int, bar: Bar, threads: int, seconds: float) -> Result:
    """Train a peer in a process of its own; see :func:`run_peer`."""
    settings = {"name": name, "task": task, "seed": seed, "bar": bar, "threads": threads, "seconds": seconds}
    command = [sys.executable, "-m", "benchmarks.time_to_solve", PEER_MARK, json.dumps(settings)]
    finished = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout.splitlines()[-1])


def run_peer(name: str, task: str, seed: int, bar: Bar, threads: int, seconds: float) -> Result:
    """Train a peer with the curriculum, the episodes and the averaging of ours, and count its errors.

    The learning rate stays as it is: how many updates fit into the time is not known beforehand.
    """
    import torch
    from pytorch_lightning import Trainer, seed_everything

    from benchmarks.peers import make_model
    from lightning_ham import HAMModule, TaskDataModule
    from lightning_ham.evaluation import evaluate
    from lightning_ham.runs.recipe.catalog import find_recipe
    from lightning_ham.training import EpisodeCounter, LengthCurriculum, MovingAverage

    torch.set_num_threads(threads)
    seed_everything(seed)
    module = HAMModule(task, seed=seed)
    module.model = make_model(name, task, bar.longest)
    data = TaskDataModule(
        task,
        **hard_cases(find_recipe(task)),
        batches_per_epoch=bar.batches_per_epoch,
        capacity=bar.longest,
        validation_lengths=[(1, bar.longest)],
        validation_episodes=bar.episodes,
        seed=seed,
    )
    counter = EpisodeCounter()
    trainer = Trainer(
        max_epochs=-1,
        max_time={"seconds": seconds},
        accelerator="cpu",
        gradient_clip_val=1.0,
        callbacks=[LengthCurriculum(), MovingAverage(), counter],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    (measured,) = evaluate(module.model, [(1, bar.longest)], bar.episodes, seed=0)["results"]
    return {
        "network": name,
        "task": task,
        "seed": seed,
        "seconds": rounded(seconds),
        "solved": measured["sequence_error"] <= bar.error,
        "wrong": measured["wrong_sequences"],
        "of": measured["episodes"],
        "evaluations": 1,
        "updates": trainer.global_step,
        "episodes": counter.episodes,
    }


def hard_cases(recipe: Path) -> dict[str, Any]:
    """The recipe's batch size and share of hard cases, which are the peers' too."""
    import yaml

    data = yaml.safe_load(recipe.read_text(encoding="utf-8"))["data"]
    return {key: data[key] for key in ("batch_size", "hard_fraction") if key in data}


def summarize(rows: list[Result]) -> list[Result]:
    """For each network and task: how many seeds solved it, and the median seconds and error."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["network"]), []).append(row)
    return [
        {
            "task": task,
            "network": network,
            "seeds": len(group),
            "solved": sum(row["solved"] for row in group),
            "median_s": rounded(statistics.median(row["seconds"] for row in group)),
            "median_error": rounded(statistics.median(row["wrong"] / row["of"] for row in group)),
        }
        for (task, network), group in groups.items()
    ]


def markdown(result: Result) -> str:
    bar = result["bar"]
    about = (
        f"Solved: of {bar['episodes']:,} fresh episodes at lengths 1-{bar['longest']}, at most {bar['error']:.1%} are "
        "wrong. Seconds are those of training, its validation included; the peers have been given those of ours with "
        "the same seed. Every training is one row, and nothing is left out."
    )
    overview = table(
        ("task", "network", "solved", "median seconds", "median share wrong"),
        (
            (
                group["task"],
                group["network"],
                f"{group['solved']} of {group['seeds']}",
                group["median_s"],
                percent(group["median_error"]),
            )
            for group in result["summary"]
        ),
    )
    columns = ("task", "network", "seed", "seconds", "wrong", "of", "evaluations", "updates", "episodes")
    details = table(columns, ([row[column] for column in columns] for row in result["rows"]))
    return f"{about}\n\n{overview}\n\n{details}"


def percent(share: float) -> str:
    """A share as a percentage with three digits that count."""
    return f"{100 * share:.3g} %"


def plot(result: Result, figure: Figure) -> None:
    axis = figure.subplots()
    groups = result["summary"]
    labels = [f"{group['task']}: {group['network']}" for group in groups]
    for position, group in enumerate(groups):
        rows = [row for row in result["rows"] if (row["task"], row["network"]) == (group["task"], group["network"])]
        axis.plot([100 * row["wrong"] / row["of"] for row in rows], [position] * len(rows), "o", alpha=0.5)
    axis.set_yticks(range(len(groups)), labels)
    axis.set(xlabel="wrong sequences (%) after the seconds that ours needed", xlim=(-5, 105))
    axis.invert_yaxis()


if __name__ == "__main__":
    if sys.argv[1:2] == [PEER_MARK]:
        print(json.dumps(run_peer(**json.loads(sys.argv[2]) | {"bar": Bar(*json.loads(sys.argv[2])["bar"])})))
    else:
        sys.exit(run("time_to_solve"))
