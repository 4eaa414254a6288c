"""Commands that a run suggests to its user."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from lightning_ham.console import SCRIPT, called
from lightning_ham.evaluation.words import percent, share_in_words
from lightning_ham.runs.folder import RECIPE


def command(name: str, *arguments: str | Path) -> str:
    """Return a command of this package for a shell, in the form in which the user called this one.

    It names this Python, or ``lightning-ham``, by its path if the shell would find another one, as in an environment
    that was not activated.
    """
    first, *rest = called(name).split()
    here = sys.argv[0] if first == SCRIPT else sys.executable
    there = shutil.which(first) or ""
    is_found = here in (there, os.path.splitext(there)[0])  # noqa: PTH122 - on Windows, the shell adds .exe
    return shlex.join([first if is_found else here, *rest, *map(str, arguments)])


def resume(run_dir: Path, *options: str) -> str:
    """Return the command that resumes the run in a folder."""
    return command("fit", run_dir / RECIPE, "--ckpt_path", "last", *options)


def use(run_dir: Path) -> str:
    """Return a line with commands for the model of a run."""
    drawn = command("draw", run_dir, "-o", "attention.svg")
    return f"Next: {command('solve', run_dir, 'FILE')}, {drawn}, or {command('evaluate', run_dir)}"


def retry(run_dir: Path, missed: Mapping[str, float | None], bar: Mapping[str, float], seed: int, longer: str) -> str:
    """Return a line about a missed bar: the errors, and what to try.

    Args:
        run_dir: The run folder.
        missed: Shares of wrong sequences above the bar, by lengths; None where not measured.
        bar: Highest accepted shares, by lengths.
        seed: Seed of the training.
        longer: Option for a longer training, such as ``--trainer.max_epochs=400``.
    """
    figures = ", ".join(
        f"{share_in_words(error)} wrong at lengths {lengths} (at most {percent(bar[lengths])})"
        for lengths, error in missed.items()
    )
    return (
        f"The bar is missed: {figures}. Try another seed (--seed_everything {seed + 1}), or train for longer: "
        f"{resume(run_dir, longer)}"
    )
