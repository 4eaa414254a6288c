"""A trained model as a folder of three files: ``config.json``, ``model.safetensors`` and ``README.md``.

Nothing that is loaded is imported, evaluated or unpickled, except our own checkpoints, and those as plain
data only (``weights_only``). What does not fit in full is refused before the model is built.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import pickle
import re
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lightning_ham.hub.config import ModelConfig, make_config, read_config
from lightning_ham.models import TaskModel

if TYPE_CHECKING:  # neither is needed to load a model
    from lightning_ham.hub.card import TrainingInfo
    from lightning_ham.training.evaluation import Evaluation

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
FILES = (CONFIG, WEIGHTS, CARD)
"""What every model consists of."""
PICTURES = ("learning_curve.png", "attention.png")
"""What is beside it where it was made, for the card to show."""
BUNDLED = Path(__file__).with_name("weights")
"""The folder of the models that come with the package, each a folder by its name."""

_MODEL_PREFIX = "model."
_TRAINING_PREFIXES = ("baseline.",)
"""What a checkpoint holds beside the model, and only training needs."""

_log = logging.getLogger(__name__)


class HAMModel(TaskModel):
    """A model for one task that can be saved and loaded.

    How it is used stands at :class:`~lightning_ham.models.TaskModel`.

    Args:
        task: Name of the task.
        controller: Name of the controller.
        controller_options: The controller's keyword arguments; those not given keep their defaults.
    """

    def save(
        self,
        folder: str | os.PathLike[str],
        evaluation: Evaluation | None = None,
        training: TrainingInfo | None = None,
        pictures: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write the model's three files to ``folder``, which appears, or changes, only when all are complete.

        Args:
            folder: Where to; it is made if it is not there. If it is, its three files and its pictures are replaced,
                and others are left alone.
            evaluation: What was measured on this model, for the card.
            training: How it was trained, for the card.
            pictures: PNG files that the card shows, by their names in :data:`PICTURES`; they are written, too.

        Raises:
            ValueError: If the model cannot be saved so that it loads, what is said of it is not of it, or a picture is
                none of the card's.
        """
        from lightning_ham.hub.card import render_card

        target = Path(folder).resolve()
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(f"Expected a folder to save to, but got the file {folder}.")
        pictures = pictures or {}
        for name in pictures:
            if name not in PICTURES:
                raise ValueError(f"Expected pictures named {' or '.join(PICTURES)}, but got {name!r}.")
        config = make_config(self.task_name, self.controller_name, self.controller_options)
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.state_dict().items()
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            staging.mkdir()
            (staging / CONFIG).write_bytes((json.dumps(config, indent=2) + "\n").encode())
            (staging / WEIGHTS).write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
            saved = type(self).from_folder(staging)  # what would not load is not kept
            card = render_card(saved, target.name, evaluation, training, pictures={name: name for name in pictures})
            (staging / CARD).write_bytes(card.encode())
            for name, picture in pictures.items():
                (staging / name).write_bytes(picture)
            if target.exists():
                for name in (*FILES, *pictures):
                    (staging / name).replace(target / name)
                for name in PICTURES:
                    if name not in pictures:
                        (target / name).unlink(missing_ok=True)  # the card does not show it any more
            else:
                staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Self:
        """Load a folder that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If the configuration or the weights are not there.
            ValueError: If anything in them is missing, unknown or of a wrong kind; the message names it.
        """
        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"Expected a folder with {CONFIG} and {WEIGHTS}, but {folder} has no {name}.")
        config = read_config(folder / CONFIG)
        weights = folder / WEIGHTS
        try:
            tensors = safetensors.torch.load_file(weights)
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"{weights}: Expected a whole safetensors file, but got: {error}; fetch or save it again."
            ) from error
        return cls._restore(config, tensors, folder / CONFIG, weights)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> Self:
        """Load the model from a checkpoint that a training of ours wrote.

        Raises:
            ValueError: If the file is not such a checkpoint, is damaged, or holds more than plain data.
        """
        path = Path(path)
        checkpoint = _load_plain(path)
        parts = checkpoint if isinstance(checkpoint, dict) else {}
        hyper_parameters, state = parts.get("hyper_parameters"), parts.get("state_dict")
        if not isinstance(hyper_parameters, dict) or not isinstance(state, dict):
            raise ValueError(f"{path}: Expected a checkpoint of lightning_ham, but got one of something else.")
        names = ("task", "controller", "controller_options")
        for name in names:
            if name not in hyper_parameters:
                raise ValueError(f"{path}: Expected a checkpoint with hyper-parameter {name!r}, but it has none.")
        try:
            config = make_config(*(hyper_parameters[name] for name in names))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        tensors = {}
        for name, tensor in state.items():
            if name.startswith(_MODEL_PREFIX):
                tensors[name.removeprefix(_MODEL_PREFIX)] = tensor
            elif not name.startswith(_TRAINING_PREFIXES):
                raise ValueError(f"{path}: Expected weights of a model, but {name!r} is not one of them.")
        return cls._restore(config, tensors, path, path)

    @classmethod
    def _restore(
        cls, config: ModelConfig, tensors: Mapping[str, Tensor], config_file: Path, weights_file: Path
    ) -> Self:
        """Build the model of ``config``, once ``tensors`` are found to be exactly its weights."""
        arguments = config["task"], config["controller"], config["controller_options"]
        with torch.random.fork_rng(devices=[]):  # initial weights are lost, and must cost no random numbers
            try:
                with torch.device("meta"):  # allocates nothing, whatever the sizes
                    expected = cls(*arguments).state_dict()
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(
                    f"{config_file}: Expected key 'controller_options' to build a controller "
                    f"{config['controller']!r}, but got: {error}"
                ) from error
            _check_tensors(tensors, expected, weights_file)
            model = cls(*arguments)
        model.load_state_dict(dict(tensors))
        return model.eval()


def from_pretrained(name_or_path: str | os.PathLike[str]) -> HAMModel:
    """Load a trained model, ready to answer.

    Args:
        name_or_path: The name of a model that comes with the package, such as ``ham-sort``; or the path of a
            saved model's folder, of a run folder, or of a checkpoint.

    Raises:
        FileNotFoundError: If a path leads to no model.
        ValueError: If a name is unknown, or what is found is not a whole and sound model.
    """
    path, origin = locate(name_or_path)
    model = HAMModel.from_checkpoint(path) if path.is_file() else HAMModel.from_folder(path)
    _log.info("Loaded %s from %s", name_or_path, origin)
    return model


def bundled_names() -> list[str]:
    """Return the names of the models that come with the package, sorted."""
    return sorted(config.parent.name for config in BUNDLED.glob(f"*/{CONFIG}"))


def locate(name_or_path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Return the model folder or the checkpoint that a name or path stands for, and where that is in words.

    What exists as a file or folder wins over a bundled model of the same name. Every further place that
    models can come from belongs here.
    """
    path, name = Path(name_or_path).expanduser(), os.fspath(name_or_path)
    if path.is_file():
        if path.suffix != ".ckpt":
            raise ValueError(f"Expected a model's folder or a checkpoint (.ckpt), but got the file {name}.")
        return path, f"the checkpoint {path}"
    if path.is_dir():
        return _locate_in_folder(path)
    if name in bundled_names():
        return BUNDLED / name, "the models that come with lightning_ham"
    known = ", ".join(bundled_names()) or "none"
    if path.name != name or path.suffix == ".ckpt":
        raise FileNotFoundError(
            "Expected the path of a model folder, a run folder or a checkpoint, or the name of a model that "
            f"comes with lightning_ham ({known}), but there is no {name}."
        )
    closest = difflib.get_close_matches(name, bundled_names(), n=1)
    hint = f" did you mean {closest[0]!r}?" if closest else ""
    raise ValueError(f"Unknown model {name!r};{hint} Known models: {known}. Anything else is given by its path.")


def _locate_in_folder(folder: Path) -> tuple[Path, str]:
    """Return what to load from a folder: the model saved in it, or the best that a run folder has."""
    for model in (folder, folder / "model"):
        if (model / CONFIG).is_file():
            return model, f"the folder {model}"
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = folder / "checkpoints" / name
        if checkpoint.is_file():
            return checkpoint, f"the checkpoint {checkpoint}"
    raise FileNotFoundError(
        f"Expected a folder with {CONFIG}, or a run folder with model/{CONFIG}, checkpoints/best.ckpt or "
        f"checkpoints/last.ckpt, but {folder} has none of them."
    )


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    """Raise a ValueError unless ``tensors`` have exactly the names, shapes and types of ``expected``."""
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    for names, complaint in ((missing, "is missing"), (unexpected, "is not one of the model's")):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(
                f"{file}: Expected exactly the weights of the model, but {names[0]!r} {complaint}{others}."
            )
    for name, like in expected.items():
        got = tensors[name]
        if not isinstance(got, Tensor):
            raise ValueError(f"{file}: Expected {name!r} to be a tensor, but got {type(got).__name__}.")
        if got.shape != like.shape:
            raise ValueError(f"{file}: Expected {name!r} of shape {list(like.shape)}, but got {list(got.shape)}.")
        if got.dtype != like.dtype:
            raise ValueError(f"{file}: Expected {name!r} of type {like.dtype}, but got {got.dtype}.")


def _load_plain(path: Path) -> Any:
    """Return what a checkpoint holds, if that is plain data and whole."""
    damaged = f"{path}: Expected a whole checkpoint, but got a damaged file or one of another kind"
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not notice changed bytes
            changed = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{damaged}: {error}.") from error
    if changed is not None:
        raise ValueError(f"{damaged}: the checksum of {changed!r} is wrong.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"refers to {found[1]!r}" if found else "holds other objects"
        raise ValueError(
            f"{path}: Expected a checkpoint of tensors and plain data, but it {what}: loading it could run "
            "code of its own, and is refused."
        ) from error
    except RuntimeError as error:
        raise ValueError(f"{damaged}: {str(error).partition('.')[0]}.") from error
