"""Search for better values of a recipe's keys: ``python -m lightning_ham.sweep RECIPE --trials 50``.

RECIPE is a file or the name of a shipped recipe; its section ``sweep`` has the space. Each trial trains the recipe with
other values, as ``fit`` does, in ``runs/sweep-RECIPE/trials``. Trials that learn less than others are pruned. Several
processes may work on one sweep. The same command goes on with it.
"""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, natural, positive, recipe_overrides, run, time_limit
from lightning_ham.foreign import LONGEST_MESSAGE, shown
from lightning_ham.runs.recipe.catalog import recipe_names


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "sweep",
        "Train a recipe with many values of its keys, and write the best recipe, tables and pictures.\n\n"
        + textwrap.fill(f"Shipped recipes: {', '.join(recipe_names())}", 100, break_on_hyphens=False),
        epilog="Keys of recipes, in the form --trainer.max_epochs=10, override them in every trial.\n"
        "VALUES are loguniform(1e-4, 1e-2), uniform(0, 1), uniform(32, 128, 32), choice(a, b), or as in a recipe:\n"
        "{low: 1e-4, high: 1e-2, log: true}, {low: 32, high: 128, step: 32}, {choices: [a, b]}.",
    )
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="a file, or the name of a shipped recipe")
    add("--trials", type=positive, default=50, metavar="N", help="trials in all, earlier ones included (default: 50)")
    add("--space", action="append", default=[], metavar="KEY=VALUES", help="what to search; may be repeated")
    add("--seeds", type=positive, default=1, metavar="N", help="trainings of a trial; their median counts (default: 1)")
    add("--sampler", choices=("tpe", "random"), default="tpe", help="how values are drawn (default: tpe)")
    add("--sampler_seed", type=natural, default=0, metavar="N", help="seed of the values (default: 0)")
    add("--pruner", choices=("median", "asha", "none"), default="median", help="what ends trials (default: median)")
    add("--startup", type=natural, default=5, metavar="N", help="finished trials before the median prunes (default: 5)")
    add("--warmup", type=natural, default=10, metavar="N", help="validations before any trial is pruned (default: 10)")
    add("--budget", type=time_limit, metavar="TIME", help="longest training, such as 90s or 20m (default: no limit)")
    add("--jobs", type=positive, default=2, metavar="N", help="trials at once (default: 2)")
    add("--threads", type=positive, default=1, metavar="N", help="CPU threads of each training (default: 1)")
    add("--name", metavar="NAME", help="name of the sweep (default: sweep-RECIPE)")
    add("--run_dir", type=Path, metavar="DIR", help="its folder (default: runs/NAME)")
    add("--storage", metavar="URL", help="Optuna's storage, for many machines (default: study.db in the folder)")
    add(
        "--grace",
        type=time_limit,
        default=time_limit("2m"),
        metavar="TIME",
        help="a process that gives no sign of life for so long counts as dead, and its trial is retried (default: 2m)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    words = list(sys.argv[1:] if argv is None else argv)
    mine, overrides = recipe_overrides(words)
    arguments = parser.parse(mine)
    if importlib.util.find_spec("optuna") is None:
        parser.error("Expected Optuna, which is not installed; install it with: pip install 'lightning-ham[sweep]'")
    from lightning_ham.runs.train import quieten
    from lightning_ham.sweeps.plan import make_plan  # takes seconds, so only when a sweep begins
    from lightning_ham.sweeps.session import sweep

    quieten()
    try:
        return sweep(make_plan(arguments, overrides, words))
    except (OSError, ValueError) as error:
        print(f"error: {shown(error, LONGEST_MESSAGE)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    run(main)
