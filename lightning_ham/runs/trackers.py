"""What a training shows in its trackers beside numbers: tables of decoded episodes, and pictures of attention."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_ham.pictures.formats import Picture, rendered
from lightning_ham.tasks import Episodes
from lightning_ham.training import HAMModule

RUN_DIR = "{run_dir}"
"""In an argument of a recipe's logger: the run folder."""
MOST_CELLS = 8
"""Most cells of an instance whose attention is drawn during a training: a larger picture takes long."""


@runtime_checkable
class TakesMedia(Protocol):
    """A logger with W&B's methods for tables and images."""

    def log_table(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
        """Log a table."""
        ...

    def log_image(self, key: str, images: list[Any]) -> None:
        """Log images."""
        ...


def made_loggers(given: Any, run_dir: str) -> list[Logger]:
    """Make the loggers of a recipe, now that its run folder is known.

    Args:
        given: The value of ``trainer.logger``: null, a function that makes a logger, or a list of them.
        run_dir: The run folder, which takes the place of ``{run_dir}`` in their arguments.

    Raises:
        ModuleNotFoundError: If the package of a tracker is not installed.
        ValueError: If W&B is among them, or a value is no logger.
    """
    makers = given if isinstance(given, list | tuple) else [] if given is None else [given]
    loggers: list[Logger] = []
    for maker in makers:
        if not isinstance(maker, functools.partial):
            raise ValueError(
                "Expected argument `logger` to be a logger by its `class_path` and `init_args`, or a list of them, "
                f"but got {maker}; metrics always go to the run folder."
            )
        if isinstance(maker.func, type) and issubclass(maker.func, WandbLogger):
            raise ValueError(
                "Expected argument `logger` to be another than WandbLogger: a run is logged to W&B as the keys of "
                "'wandb' say."
            )
        arguments = {
            name: value.replace(RUN_DIR, run_dir) if isinstance(value, str) else value
            for name, value in maker.keywords.items()
        }
        loggers.append(cast(Logger, maker.func(*maker.args, **arguments)))
    return loggers


def log_table(logger: Logger, name: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
    """Log a table, if the tracker takes tables or text."""
    if isinstance(logger, TakesMedia):
        logger.log_table(name, columns=columns, data=rows)
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(name, _as_markdown([columns, ["---"] * len(columns), *rows]), step)
    elif isinstance(logger, MLFlowLogger):
        values: Mapping[str, list[Any]] = {column: [row[i] for row in rows] for i, column in enumerate(columns)}
        logger.experiment.log_table(logger.run_id, values, f"{name}.json")


def log_picture(logger: Logger, name: str, picture: Picture, step: int) -> None:
    """Log a picture, if the tracker takes pictures."""
    if isinstance(logger, TakesMedia):
        logger.log_image(name, images=[_pixels(picture)])
    elif isinstance(logger, TensorBoardLogger):
        pixels = torch.frombuffer(bytearray(_pixels(picture).tobytes()), dtype=torch.uint8)
        width, height = _pixels(picture).size
        logger.experiment.add_image(name, pixels.view(height, width, 3), step, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, _pixels(picture), f"{name}-{step}.png")


def _pixels(picture: Picture) -> Image.Image:
    content = rendered(picture, ".png")
    assert isinstance(content, bytes)
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def _as_markdown(rows: Iterable[Sequence[Any]]) -> str:
    r"""Return rows as a table in Markdown.

    >>> print(_as_markdown([["a", "b"], ["---", "---"], [1, "x|y"]]))
    | a | b |
    | --- | --- |
    | 1 | x\|y |
    """
    cells = ([str(cell).replace("|", r"\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


class EpisodeTable(Callback):
    """Logs a table of decoded validation episodes (length, input, expected, got), and a picture of attention in one.

    W&B, TensorBoard, MLflow and loggers with W&B's methods take them; other loggers get nothing.

    Args:
        episodes: Rows of the table.
        every: Epochs between two tables.
    """

    def __init__(self, episodes: int = 16, every: int = 5) -> None:
        self.episodes = episodes
        self.every = every

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Episodes,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the first episodes of the first set, while the averaged weights are in place."""
        takers = (TakesMedia, TensorBoardLogger, MLFlowLogger)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, takers)]
        first = batch_idx == 0 and dataloader_idx == 0
        if not loggers or not first or trainer.current_epoch % self.every or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, HAMModule)
        task = pl_module.model.task
        shown = Episodes(*(tensor[: self.episodes] for tensor in batch))
        bits = (pl_module(shown) > 0).cpu()
        shown = Episodes(*(tensor.cpu() for tensor in shown))
        instances = [task.decode_inputs(*cells) for cells in zip(shown.inputs, shown.occupied, strict=True)]
        rows = []
        for instance, inputs, length, got in zip(instances, shown.inputs, shown.lengths.tolist(), bits, strict=True):
            answer = task.decode(got[: task.timesteps_for(length)], inputs)
            expected = task.oracle(instance)
            rows.append([trainer.current_epoch, length, str(instance), str(expected), str(answer), answer == expected])
        columns = ["epoch", "length", "input", "expected", "got", "right"]
        picture = _picture(
            pl_module, [instance for instance, row in zip(instances, rows, strict=True) if row[1] <= MOST_CELLS]
        )
        for logger in loggers:
            log_table(logger, "episodes", columns, rows, trainer.global_step)
            if picture:
                log_picture(logger, "attention", picture, trainer.global_step)


def _picture(module: HAMModule, instances: Sequence[Any]) -> Picture | None:
    """Return a picture of attention in the first of some instances; None without any, or without a tree to draw."""
    if not instances or module.model.accesses_per_output == 0:
        return None
    trace = module.trace(instances[0])
    return module.draw(instances[0]) if trace["steps"][0]["branch_probabilities"] else None
