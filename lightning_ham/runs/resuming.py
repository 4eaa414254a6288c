"""Resuming from a checkpoint: checked before the run is changed, with failures in one sentence."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_ham.foreign import quoted, shown
from lightning_ham.hub.checkpoint import leaves, read_checkpoint
from lightning_ham.hub.pretrained import TrainedModel
from lightning_ham.runs.endings import is_lost_process
from lightning_ham.training import HAMModule

_LOG = logging.getLogger(__name__)
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,2}((a|b|rc|\.dev|\.post)[0-9]{1,8})?")
"""Form of Lightning's version, which Lightning shows if it is newer than its own."""
_MOST_COUNTED = 1 << 53


class ResumeError(ValueError):
    """A training could not resume from its checkpoint."""


def check_resumable(path: Path, module: HAMModule) -> None:
    """Raise a ValueError unless a checkpoint is complete, plain data and fits the module.

    This does not use Lightning's own loading, which builds classes that the checkpoint names.
    """
    TrainedModel.from_checkpoint(path)
    checkpoint = read_checkpoint(path)
    version = checkpoint.content.get("pytorch-lightning_version")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(f"{shown(path)}: Expected a checkpoint with Lightning's version, but got {quoted(version)}.")
    for count in leaves(checkpoint.content.get("loops"), path):
        if not isinstance(count, int) or not 0 <= count < _MOST_COUNTED:  # else it might train forever
            raise ValueError(
                f"{shown(path)}: Expected counts of epochs and batches to be whole numbers of at least 0, but got "
                f"{quoted(count)}."
            )
    shapes, expected = (
        {name: tensor.shape for name, tensor in state.items()} for state in (checkpoint.state, module.state_dict())
    )
    if checkpoint.hyper_parameters["task"] != module.hparams["task"] or shapes != expected:
        raise ValueError(
            f"Expected a checkpoint of the recipe's model, but {shown(path)} holds another one; "
            f"resume it with the recipe.yaml of its run."
        )


class _UnderWay(Callback):
    """Notes whether a training has completed its first batch."""

    def __init__(self) -> None:
        self.is_so = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.is_so = True


@contextmanager
def resuming(trainer: Trainer, checkpoint: Path | None) -> Iterator[None]:
    """Report in one sentence if the training in this context cannot resume from ``checkpoint``, if there is one.

    Only Lightning can check the state of loops, callbacks and optimizers; it fails on them in many ways.

    Raises:
        ResumeError: Instead of any error before the end of the first batch, except that another process is lost.
    """
    under_way = _UnderWay()
    if checkpoint is not None:
        trainer.callbacks.insert(0, under_way)  # type: ignore[attr-defined]
    try:
        yield
    except Exception as error:
        if checkpoint is None or under_way.is_so or is_lost_process(error):
            raise
        _LOG.debug("The training does not go on", exc_info=error)
        reason = shown(f"{type(error).__name__}: {error}")
        raise ResumeError(
            f"Expected to go on from {shown(checkpoint)}, but got {reason}. Resume another checkpoint, or train anew."
        ) from error
