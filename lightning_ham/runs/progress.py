"""Progress of a training: a bar in a terminal, two lines in place in a notebook, elsewhere one line per epoch."""

from __future__ import annotations

import html
import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from lightning_ham.notebook import is_from_notebook, is_notebook

_SHOWN = {
    "curriculum/capacity": ("leaves", "{:.0f}"),
    "train/nll": ("nll", "{:.3f}"),
    "val/current/sequence_error": ("wrong", "{:.2%}"),
    "train/episodes_per_second": ("episodes/s", "{:.0f}"),
}


def summary(trainer: Trainer, *, validated: bool) -> dict[str, str]:
    """Return the main numbers by short name: leaves, loss, wrong sequences, speed.

    All processes must call this, as some numbers are means over them.

    Args:
        trainer: Provides the metrics.
        validated: Whether this epoch was validated; older validation errors are left out.
    """
    metrics = {key: value for key, value in trainer.callback_metrics.items() if validated or not key.startswith("val/")}
    shown = {short: form.format(float(metrics[key])) for key, (short, form) in _SHOWN.items() if key in metrics}
    for key, value in metrics.items():
        lengths = key.removeprefix("val/").removesuffix("/sequence_error")
        if key == f"val/{lengths}/sequence_error" and lengths != "current":
            shown[f"wrong {lengths}"] = f"{float(value):.2%}"
    return shown


def epoch(trainer: Trainer) -> str:
    """Return the current epoch, counted from 1, and the total if known, as text."""
    number, last = trainer.current_epoch + 1, trainer.max_epochs
    return f"epoch {number}" if last is None or last < 0 else f"epoch {number}/{last}"


def _in_a_row(numbers: dict[str, str]) -> str:
    return "  ".join(f"{name} {value}" for name, value in numbers.items())


class _Numbers(Callback):
    """Shows the numbers of every epoch at its end."""

    def __init__(self) -> None:
        super().__init__()
        self._validated = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the note of a validation."""
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there was a validation."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect the epoch's numbers, in all processes, and show them."""
        self.show(trainer, summary(trainer, validated=self._validated))

    def show(self, trainer: Trainer, numbers: dict[str, str]) -> None:
        """Show the numbers of the epoch that has ended."""
        raise NotImplementedError


class TrainingBar(_Numbers, ProgressBar):
    """Two lines in place: a bar for the epoch, and below it the numbers of the last complete epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._lines: _Lines | None = None
        self._task = TaskID(0)

    def disable(self) -> None:
        """Show nothing; only one of several processes shows the bar."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        if self._enabled:
            self._lines = _Lines()
            self._task = self._lines.add_task(epoch(trainer), total=None)
            self._lines.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the bar for a new epoch; the time still counts from the start of the training."""
        super().on_train_epoch_start(trainer, pl_module)
        if self._lines:
            total = self.total_train_batches
            self._lines.update(
                self._task, description=epoch(trainer), completed=0, total=None if total == float("inf") else total
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Advance the bar by a batch."""
        if self._lines:
            self._lines.update(self._task, completed=batch_idx + 1)

    def show(self, trainer: Trainer, numbers: dict[str, str]) -> None:
        """Show the numbers in the second line."""
        if self._lines:
            speed = numbers.pop("episodes/s")  # last, as it matters least if the line is cut
            self._lines.numbers = _in_a_row(numbers | {"episodes/s": speed})
            self._lines.refresh()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop updating the lines, and leave them visible."""
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop updating the lines, and leave them visible."""
        self._stop()

    def _stop(self) -> None:
        if self._lines:
            self._lines.stop()
            self._lines = None


class _Lines(Progress):
    """A rich progress bar with a line of numbers below it, both cut to the width of the terminal."""

    def __init__(self) -> None:
        self.numbers = ""
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),  # a file is not redirected
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the two lines."""
        yield from super().get_renderables()
        yield Text(self.numbers, no_wrap=True, overflow="ellipsis")


class TrainingLines(_Numbers):
    """Prints one line per epoch, for logs and pipes.

    Args:
        few: Print few of them: the first ten, then every tenth, those at which the leaves were doubled, and the last.
    """

    def __init__(self, *, few: bool = False) -> None:
        super().__init__()
        self._few = few
        self._leaves: str | None = None
        self._untold = ""

    def show(self, trainer: Trainer, numbers: dict[str, str]) -> None:
        """Print the line, or keep it for the end of the training."""
        line = f"{epoch(trainer)}  {_in_a_row(numbers)}"
        number, leaves = trainer.current_epoch + 1, numbers.get("leaves")
        is_told = not self._few or number <= 10 or number % 10 == 0 or leaves != self._leaves
        self._leaves, self._untold = leaves, "" if is_told else line
        if is_told and trainer.is_global_zero:
            print(line, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last line, if it was not."""
        if self._untold and trainer.is_global_zero:
            print(self._untold, flush=True)


class NotebookProgress(_Numbers):
    """A bar of the epochs and the numbers of the last one, in one output of a notebook's cell."""

    def __init__(self) -> None:
        super().__init__()
        self._output: Any = None

    def show(self, trainer: Trainer, numbers: dict[str, str]) -> None:
        """Replace the output."""
        from IPython.display import display

        if not trainer.is_global_zero:
            return
        done, last = trainer.current_epoch + 1, trainer.max_epochs
        share = f' value="{done}" max="{last}"' if last is not None and last > 0 else ""
        text = f"{epoch(trainer)}\n{_in_a_row(numbers)}"
        lines = html.escape(text).replace("\n", "<br>").replace("  ", "&emsp;")
        shown = {"text/plain": text, "text/html": f"<progress{share}></progress> {lines}"}
        if self._output is None:
            self._output = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._output.update(shown, raw=True)


class AboveBar(logging.StreamHandler[TextIO]):
    """Logs to the current ``sys.stderr``, so that messages appear above a bar in the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.setStream(sys.stderr)
        super().emit(record)


def make_progress(bar: bool | None) -> TrainingBar | TrainingLines | NotebookProgress:
    """Return what shows the progress.

    Args:
        bar: Whether to show a bar where there can be one; None: where standard output is a terminal or a notebook.
    """
    if bar is not False and is_notebook():
        return NotebookProgress()
    if bar is None and is_from_notebook():
        return TrainingLines(few=True)
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return TrainingBar() if (is_terminal if bar is None else bar) else TrainingLines()
