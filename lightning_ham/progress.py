"""What a person sees while training: a rich bar in a terminal, one line an epoch anywhere else."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar

_SHOWN = {
    "curriculum/capacity": ("leaves", "{:.0f}"),
    "train/nll": ("nll", "{:.3f}"),
    "val/current/sequence_error": ("wrong", "{:.2%}"),
    "train/episodes_per_second": ("episodes/s", "{:.0f}"),
}


def summary(trainer: Trainer) -> dict[str, str]:
    """Return the numbers that matter, by short name: leaves, loss, wrong sequences, speed.

    To be called by all processes, as some numbers are means over them.
    """
    metrics = trainer.callback_metrics
    shown = {short: form.format(float(metrics[key])) for key, (short, form) in _SHOWN.items() if key in metrics}
    for key, value in metrics.items():
        lengths = key.removeprefix("val/").removesuffix("/sequence_error")
        if key == f"val/{lengths}/sequence_error" and lengths != "current":
            shown[f"wrong {lengths}"] = f"{float(value):.2%}"
    return shown


class TrainingBar(RichProgressBar):
    """Lightning's rich progress bar with the numbers of :func:`summary`, those of the last whole epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, str] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the epoch's numbers: here, as the bar itself asks for them in one process only."""
        self._numbers = summary(trainer)
        super().on_train_epoch_end(trainer, pl_module)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands beside the bar."""
        return dict(self._numbers)


class TrainingLines(Callback):
    """Prints one line an epoch, for logs and pipes."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's numbers."""
        numbers = "  ".join(f"{name} {value}" for name, value in summary(trainer).items())
        if trainer.is_global_zero:
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {numbers}", flush=True)


def make_progress(bar: bool) -> TrainingBar | TrainingLines:
    """Return the bar, or lines."""
    return TrainingBar() if bar else TrainingLines()
