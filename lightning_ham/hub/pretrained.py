"""Trained models: saved as a folder with a fixed set of files, published, and loaded from any place.

The files are ``config.json``, ``model.safetensors`` and ``README.md``, for a certified model ``certificate.json``, and
in the original folder also the card's two pictures, ``learning_curve.png`` and ``attention.png``. Loading uses the
configuration, the weights and the certificate.

Loading never imports, evaluates or unpickles anything, except our own checkpoints, and those as plain data only
(``weights_only``). Files that do not fit completely are refused before the model is built.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor

from lightning_ham.certification.certificate import Certificate, read_certificate
from lightning_ham.evaluation.words import percent
from lightning_ham.foreign import quoted, shown
from lightning_ham.hub.checkpoint import read_model
from lightning_ham.hub.config import ModelConfig, check_weights, make_config
from lightning_ham.hub.files import CARD, CERTIFICATE, CONFIG, MAX_CERTIFICATE, PICTURES, WEIGHTS, has, replacing, saved
from lightning_ham.hub.folder import check_tensors, parse_weights, read_folder, write_weights
from lightning_ham.hub.measured import CardFacts, read_card, read_measured
from lightning_ham.hub.places import locate
from lightning_ham.hub.supervision import in_words
from lightning_ham.memory import HierarchicalAttentiveMemory
from lightning_ham.models import TaskModel, Trace
from lightning_ham.tasks import Lengths

if TYPE_CHECKING:  # neither is needed to load a model
    from lightning_ham.evaluation import Evaluation
    from lightning_ham.hub.card import TrainingInfo
    from lightning_ham.pictures.formats import Picture

_log = logging.getLogger(__name__)


class _DrawnTrace(dict[str, Any]):
    """A trace, which is plain data, that a notebook shows as a picture."""

    def __init__(self, model: TaskModel, instance: Any, trace: Trace) -> None:
        super().__init__(trace)
        self._model = model
        self._instance = instance

    def _repr_svg_(self) -> str | None:
        from lightning_ham.pictures.attention import draw_attention
        from lightning_ham.pictures.formats import to_svg

        try:
            return to_svg(draw_attention(self._model, self._instance, trace=cast(Trace, self)))
        except ValueError:  # too long to draw: a notebook shows the data then
            return None


class TrainedModel(TaskModel):
    """A model for one task that can be saved, published and loaded.

    :class:`~lightning_ham.models.TaskModel` describes its use.

    Args:
        task: Name of the task.
        controller: Name of the controller.
        controller_options: The controller's keyword arguments; missing ones keep their defaults.
    """

    card: Path | None = None
    """Path of the card in the folder that it was loaded from; the file may be missing."""
    _measured: Mapping[Lengths, float] | None = None
    _certificate: Certificate | None = None

    @property
    def measured(self) -> Mapping[Lengths, float]:
        """Share of wrong sequences, in [0, 1], by range of lengths, from the card it was loaded with."""
        if self._measured is None:
            self._measured = read_measured(self.card) if self.card else {}
        return self._measured

    @property
    def certificate(self) -> Certificate | None:
        """The proof that it is right for every capacity; None without one, or if its weights or grid were changed.

        Setting one raises a ValueError if it is of another model.
        """
        certificate = self._certificate
        return certificate if certificate is not None and self._is_of(certificate) else None

    @certificate.setter
    def certificate(self, certificate: Certificate | None) -> None:
        if certificate is not None and not self._is_of(certificate):
            raise ValueError(
                "Expected a certificate of this model, but got one of another task, grid or weights "
                f"({quoted(certificate.task)}, SHA-256 {shown(certificate.weights_sha256[:12])}...). Make one with "
                "`python -m lightning_ham.certify`."
            )
        self._certificate = certificate

    @property
    def is_certified(self) -> bool:
        return self.certificate is not None

    def _is_of(self, certificate: Certificate) -> bool:
        """Return whether a certificate is of this model as it is now."""
        described = (self.task_name, self._options_now().get("grid"), self.weights_sha256())
        return described == (certificate.task, certificate.grid, certificate.weights_sha256)

    def draw(self, instance: Any, steps: Sequence[int] | None = None) -> Picture:
        """Draw what the model attends to while it answers an instance: a tree for each access to the memory.

        A notebook shows the picture; ``draw(instance).save("attention.svg")`` writes it to a file.

        Args:
            instance: In any form that :meth:`solve` takes, of at most 64 cells.
            steps: Accesses to draw, counted from 0 as in :meth:`trace`; by default all, or an even selection of many.

        Raises:
            InstanceError: If the instance does not belong to the task.
            ValueError: If it is too long to draw, a step is out of range, or the model has no memory.
        """
        from lightning_ham.pictures.attention import draw_attention

        return draw_attention(self, instance, steps)

    def _shown(self, instance: Any, trace: Trace) -> Trace:
        return cast(Trace, _DrawnTrace(self, instance, trace))

    def extra_repr(self) -> str:
        """Return what is known of the model, as the first lines of its ``repr``."""
        card = read_card(self.card) if self.card else CardFacts({}, ())
        errors = ", ".join(f"{percent(share)} at lengths {lengths}" for lengths, share in card.measured.items())
        sizes = ", ".join(f"{name} {size}" for name, size in self.controller_options.items() if name.endswith("_size"))
        return (
            f"task: {self.task_name}, with {self.controller_name}\n"
            f"sizes: {self.num_parameters:,} parameters, {sizes}\n"
            f"supervision: {in_words(card.supervision) or 'unknown'}\n"
            f"wrong sequences: {errors or 'not measured'}"
        )

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        evaluation: Evaluation | None = None,
        training: TrainingInfo | None = None,
        name: str | None = None,
        pictures: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write the model's files to ``folder``, which appears, or changes, only when all are complete.

        These are the configuration, the weights and the card, and its certificate if it has one.

        If this is interrupted, the folder still loads, as the former model or as this one.

        Args:
            folder: The destination, created if missing. In an existing folder, the three files and the pictures are
                replaced; other files stay.
            evaluation: Results of an evaluation of this model, for the card.
            training: Facts about its training, for the card.
            name: Name that the card's example loads; the folder's name if None.
            pictures: PNG files for the card, by their names in :data:`PICTURES`; they are written, too.

        Raises:
            ValueError: If the saved model would not load, the evaluation or training do not fit it, or a picture has
                an unknown name.
        """
        from lightning_ham.hub.card import render_card

        target = Path(folder).resolve()
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(f"Expected a folder to save to, but got the file {shown(folder)}.")
        pictures = pictures or {}
        for file in pictures:
            if file not in PICTURES:
                raise ValueError(f"Expected pictures named {' or '.join(PICTURES)}, but got {quoted(file)}.")
        weights = write_weights(self.state_dict())
        config = self.config()
        check_tensors(self.state_dict(), self.state_dict(), target)
        with replacing(target) as staging:
            (staging / CONFIG).write_bytes((json.dumps(config, indent=2) + "\n").encode())
            (staging / WEIGHTS).write_bytes(weights)
            certificate = self.certificate
            if certificate is not None:
                (staging / CERTIFICATE).write_bytes(certificate.to_bytes())
            loaded = type(self).from_folder(staging)  # raises if it would not load
            card_name = name or target.name
            links = {picture: picture for picture in pictures}
            card = render_card(loaded, card_name, evaluation, training, pictures=links, is_folder=name is None)
            (staging / CARD).write_bytes(card.encode())
            for file, picture in pictures.items():
                (staging / file).write_bytes(picture)

    def config(self) -> ModelConfig:
        """Return what ``config.json`` of the saved model holds: task, controller, its options, hash of the weights."""
        return make_config(self.task_name, self.controller_name, self._options_now(), self.weights_sha256())

    def _options_now(self) -> dict[str, Any]:
        """Return the controller's options, with the grid that its memory has now."""
        memory = getattr(self.controller, "memory", None)
        if "grid" not in self.controller_options or not isinstance(memory, HierarchicalAttentiveMemory):
            return self.controller_options
        return self.controller_options | {"grid": memory.grid}

    def weights_sha256(self) -> str:
        """Return the SHA-256 of the file of weights, in hexadecimal digits."""
        return hashlib.sha256(write_weights(self.state_dict())).hexdigest()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        endpoint: str | None = None,
    ) -> Self:
        """Load a trained model as an object of this class; see :func:`from_pretrained`."""
        path, origin = locate(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            endpoint=endpoint,
        )
        model = cls.from_checkpoint(path) if path.is_file() else cls.from_folder(path)
        _log.info("Loaded %s from %s", shown(name_or_path), origin)
        return model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        endpoint: str | None = None,
        evaluation: Evaluation | None = None,
        training: TrainingInfo | None = None,
    ) -> str:
        """Publish the model on the Hub, in one commit, with a card; return its address there.

        On the main branch, the commit gets the next free tag of ``v1``, ``v2``, ... If nothing has changed since the
        last push, there is no commit and no tag.

        Args:
            repo_id: ``organisation/name``; created if missing.
            private: Whether a new model is visible to its owners only.
            token: A token that may write; by default that of `hf auth login` or HF_TOKEN.
            commit_message: Message of the commit.
            revision: The branch, created if missing; the main branch if None.
            create_pr: Propose the change to an existing model in a pull request.
            endpoint: The Hub's address; by default HF_ENDPOINT's.
            evaluation: Results of an evaluation of this model, for the card.
            training: Facts about its training, for the card.

        Raises:
            ConnectionError: If the Hub cannot be reached or fails.
            FileNotFoundError: If ``create_pr`` is given and there is no such model.
            PermissionError: If there is no token, or it does not permit this.
            ValueError: If the name is invalid on the Hub, or the evaluation or training do not fit the model.
        """
        from lightning_ham.hub.push import check_name, check_token, push_folder

        check_name(repo_id)
        check_token(repo_id, token)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "model")
            self.save_pretrained(folder, evaluation, training, name=repo_id)
            return push_folder(
                folder,
                repo_id,
                private=private,
                token=token,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
                endpoint=endpoint,
            )

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Self:
        """Load a folder that :meth:`save_pretrained` wrote.

        Raises:
            FileNotFoundError: If the configuration or the weights are missing.
            ValueError: If anything in them is missing, unknown or of a wrong kind; the message names it.
        """
        folder = Path(folder)
        config, weights = read_folder(folder)
        if "weights_sha256" not in config:
            _log.warning(
                "%s has no hash of the weights: it cannot be checked whether they are those that were saved. Save the "
                "model again.",
                shown(folder / CONFIG),
            )
        model = cls._restore(config, parse_weights(weights, folder / WEIGHTS), folder / CONFIG, folder / WEIGHTS)
        check_weights(config, weights, folder / WEIGHTS)  # last, as the other checks explain better what is wrong
        model.card = folder / CARD
        if has(folder, CERTIFICATE):
            model.certificate = _read_certificate(folder)
        return model

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> Self:
        """Load the model from a checkpoint of our training.

        Raises:
            ValueError: If the file is not such a checkpoint, is damaged, or holds more than plain data.
        """
        config, tensors = read_model(Path(path))
        return cls._restore(config, tensors, Path(path), Path(path))

    @classmethod
    def _restore(
        cls, config: ModelConfig, tensors: Mapping[str, Tensor], config_file: Path, weights_file: Path
    ) -> Self:
        """Build the model of ``config``, after checking that ``tensors`` are exactly its weights."""
        arguments = config["task"], config["controller"], config["controller_options"]
        with torch.random.fork_rng(devices=[]):  # drawing initial weights must not advance the caller's generator
            try:
                with torch.device("meta"):  # allocates no memory, whatever the sizes
                    expected = cls(*arguments).state_dict()
            except (TypeError, ValueError, RuntimeError) as error:
                raise ValueError(
                    f"{shown(config_file)}: Expected key 'controller_options' to build a controller "
                    f"{config['controller']!r}, but got: {shown(error)}"
                ) from error
            check_tensors(tensors, expected, weights_file)
            model = cls(*arguments)
        model.load_state_dict(dict(tensors))
        return model.eval()


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> TrainedModel:
    """Load a trained model, ready to answer: a folder from ``save_pretrained``, or a checkpoint.

    The places are searched in this order, and the log tells where the model was found:

    1. a file or folder at this path;
    2. a model in the package, unless a revision is given: no network, no account;
    3. for another bare name of the form ``ham-`` and a task's name, such as ``ham-sort-large``, the copy in the cache,
       then the Hub's organisation ``lightning-ham``. Any other bare name is refused at once, with the closest known
       name;
    4. ``organisation/name`` on the Hub, at its newest commit (except ``runs/...``, the place of run folders). Without a
       connection, the copy in the cache is loaded, with a warning.

    From the Hub, only the fixed set of files is downloaded (see this module), into the cache shared with other
    programs. The configuration and the weights are checked against their hashes each time.

    Args:
        name_or_path: The name of a model; or the path of a saved model's folder, of a run folder, or of a checkpoint.
        revision: A branch, tag or commit of a model on the Hub; its main branch if None.
        token: For a private model: a token, True for the one saved by `hf auth login`, False for none; None for the
            saved one, or that of HF_TOKEN, if there is one.
        cache_dir: The cache of models from the Hub; by default HF_HOME's.
        local_files_only: Use no network.
        endpoint: The Hub's address; by default HF_ENDPOINT's.

    Raises:
        ConnectionError: If the Hub cannot be reached, or fails.
        FileNotFoundError: If no model has this path or name, or the token may not see it.
        PermissionError: If the token does not permit it, or the cache cannot be written to.
        OSError: If the cache cannot be written to for another reason, such as a full disk.
        ValueError: If a name is unknown, or the files are not a complete, undamaged model.
    """
    return TrainedModel.from_pretrained(
        name_or_path,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        endpoint=endpoint,
    )


def _read_certificate(folder: Path) -> Certificate:
    """Return the certificate in a folder.

    Raises:
        ValueError: If the file is none, or too large.
    """
    with saved(folder, CERTIFICATE).open("rb") as file:
        content = file.read(MAX_CERTIFICATE + 1)
    if len(content) > MAX_CERTIFICATE:
        raise ValueError(
            f"{shown(folder / CERTIFICATE)}: Expected at most {MAX_CERTIFICATE:,} bytes, but got a larger file."
        )
    return read_certificate(content, folder / CERTIFICATE)
