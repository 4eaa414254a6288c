"""A Lightning logger for Trackio, whose module has the interface of W&B's."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import rank_zero_experiment  # type: ignore[attr-defined]
from pytorch_lightning.utilities import rank_zero_only


class TrackioLogger(Logger):
    """Logs to Trackio: metrics, tables and images.

    Args:
        project: The project of the run.
        name: The run's name; Trackio makes one if null.
        space_id: The Space on the Hub that shows the project, ``organisation/name``; on this machine if null.

    Raises:
        ModuleNotFoundError: If the package ``trackio`` is not installed.
    """

    def __init__(self, project: str = "lightning-ham", name: str | None = None, space_id: str | None = None) -> None:
        super().__init__()
        self._module: Any = importlib.import_module("trackio")
        self._project = project
        self._name = name
        self._where = {} if space_id is None else {"space_id": space_id}
        self._config: dict[str, Any] = {}
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The run's name."""
        return self._name

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, which begins at the first use; a run of the same name goes on."""
        if self._run is None:
            begin = {"project": self._project, "name": self._name, "config": self._config, "resume": "allow"}
            self._run = self._module.init(**begin, **self._where)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Keep hyper-parameters for the beginning of the run."""
        self._config |= vars(params) if isinstance(params, Namespace) else params

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        self._log(dict(metrics), step)

    @rank_zero_only
    def log_table(self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None) -> None:
        """Log a table."""
        self._log({key: self._module.Table(columns=columns, data=data)}, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Log the first of some images, as Trackio takes one for each key."""
        self._log({key: self._module.Image(images[0])}, step)

    def _log(self, values: dict[str, Any], step: int | None) -> None:
        _ = self.experiment
        self._module.log(values, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run."""
        if self._run is not None:
            self._module.finish()
            self._run = None
