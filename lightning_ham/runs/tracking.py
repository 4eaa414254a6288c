"""Runs in Weights & Biases: online with an API key, else offline, without asking."""

from __future__ import annotations

import logging
import netrc
import os
import re
import shlex
import uuid
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import wandb
from pydantic import ValidationError
from pytorch_lightning.loggers import WandbLogger

from lightning_ham.foreign import closest_to, quoted
from lightning_ham.runs.folder import WANDB_ID, write_whole

Mode = Literal["auto", "online", "offline", "disabled"]

_MODES: dict[str, Literal["online", "offline", "disabled"]] = {
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    "run": "online",  # W&B's older names
    "dryrun": "offline",
}
_LOG = logging.getLogger(__name__)


def resolve_mode(mode: Mode) -> Literal["online", "offline", "disabled"]:
    """Return the given mode; for ``auto`` WANDB_MODE, else online if there is an API key, else offline."""
    if mode != "auto":
        return mode
    from_environment = os.environ.get("WANDB_MODE", "")
    if from_environment in _MODES:
        return _MODES[from_environment]
    if from_environment:
        close = closest_to(from_environment.lower(), _MODES)
        hint = f"; did you mean {close!r}?" if close else "."
        raise ValueError(
            "Expected the variable WANDB_MODE to be online, offline or disabled, "
            f"but got {quoted(from_environment)}{hint}"
        )
    return "online" if _has_key() else "offline"


def check_settings(mode: Mode, project: str, entity: str | None) -> None:
    """Raise a ValueError for settings that W&B would refuse later, when the training begins.

    Args:
        mode: See :func:`resolve_mode`.
        project: Project that the run belongs to.
        entity: Team or user that owns it.
    """
    for key, name in (("project", project), ("entity", entity)):
        if name is not None and not (name.strip() and name.isprintable()):
            raise ValueError(f"Expected key 'wandb.{key}' to be a name, but got {quoted(name)}.")
    if entity is not None and re.search(r"[/\s]", entity):
        raise ValueError(f"Expected key 'wandb.entity' to be the name of a team or user, but got {quoted(entity)}.")
    try:
        wandb.Settings(project=project)
    except wandb.errors.UsageError as error:
        raise ValueError(f"Key 'wandb.project': {error}") from error
    if resolve_mode(mode) == "disabled":
        return
    for variable in sorted(name for name in os.environ if name.startswith("WANDB_")):
        try:
            wandb.Settings().update_from_env_vars({variable: os.environ[variable]})
        except (ValueError, wandb.errors.UsageError) as error:
            # W&B's full message would quote the value, which could be a secret.
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise ValueError(f"Expected the variable {variable} to be one that W&B takes, but got: {reason}") from None


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        return host is not None and netrc.netrc(path).authenticators(host) is not None
    except (OSError, RuntimeError, UnicodeDecodeError, netrc.NetrcParseError):  # no file, no home, or not such a file
        return False


def make_logger(
    run_dir: Path, config: dict[str, Any], mode: Mode, project: str, entity: str | None, name: str
) -> WandbLogger | None:
    """Start (or continue) the W&B run of a run folder; None if it is disabled.

    The run's id is kept in the folder, so that a resumed training continues its run.

    Args:
        run_dir: The run folder, also for W&B's files.
        config: The resolved recipe.
        mode: See :func:`resolve_mode`.
        project: Project that the run belongs to.
        entity: Team or user that owns it.
        name: Name of the run.
    """
    resolved = resolve_mode(mode)
    if resolved == "disabled":
        return None
    _keep_files_in(run_dir / "wandb")
    run_id = _run_id(run_dir / WANDB_ID)
    settings = wandb.Settings(console="off", silent=True)
    if "WANDB_INIT_TIMEOUT" not in os.environ:
        settings.init_timeout = 20  # W&B's default of 90 seconds is long without a network
    wandb.setup(wandb.Settings(silent=True))

    def start(mode: Literal["online", "offline"]) -> WandbLogger:
        run = wandb.init(
            dir=run_dir,
            id=run_id,
            resume="allow",
            name=name,
            project=project,
            entity=entity,
            config=config,
            mode=mode,
            settings=settings,
        )
        return WandbLogger(experiment=run)

    try:
        return start(resolved)
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        if resolved == "offline":
            raise
        _LOG.warning("W&B cannot be used (%s); logging offline.", str(error).splitlines()[0])
        wandb.teardown()  # the service still holds the failed run
        return start("offline")


def _run_id(file: Path) -> str:
    """Return the W&B run id in a file; make and write one if it is missing or damaged."""
    if file.exists():
        found = file.read_bytes().strip()
        if re.fullmatch(rb"[\w-]{1,64}", found):
            return found.decode()
        _LOG.warning("%s is damaged; the training goes on in a new run of W&B.", file)
    run_id = uuid.uuid4().hex[:8]
    write_whole(file, f"{run_id}\n".encode())
    return run_id


def _keep_files_in(folder: Path) -> None:
    """Make W&B use ``folder`` for files that belong in the user's home, if the home cannot be written."""
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        os.environ["HOME"] = str(folder.absolute())  # W&B fails without one, whatever else is set
    usual_folders = {"WANDB_DATA_DIR": Path(wandb.env.get_data_dir()), "WANDB_CACHE_DIR": wandb.env.get_cache_dir()}
    for variable, usual in usual_folders.items():
        if not _can_be_written(usual):
            os.environ[variable] = str(folder.absolute() / "files")


def _can_be_written(folder: Path) -> bool:
    """Return whether ``folder`` exists or can be created, and can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def finish(logger: WandbLogger) -> str:
    """End the run; return a line that tells where to see it."""
    run = logger.experiment
    folder = Path(run.dir).parent
    run.finish()
    if not run.offline:
        return f"The run in W&B: {run.url}"
    parts = sorted(folder.parent.glob(f"offline-run-*-{run.id}"))  # more than one if the training was resumed
    return f"To see the run in W&B: {shlex.join(['wandb', 'sync', *map(str, parts)])}"
