"""A trained model: saved as a folder of a fixed set of files, published, and loaded again from wherever it is.

The files are ``config.json``, ``model.safetensors`` and ``README.md``, and where they were made, the card's two
pictures, ``learning_curve.png`` and ``attention.png``. Only the configuration and the weights are used to load a model.

Nothing that is loaded is imported, evaluated or unpickled, except our own checkpoints, and those as plain
data only (``weights_only``). What does not fit in full is refused before the model is built.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from lightning_ham.foreign import quoted, shown
from lightning_ham.hub.checkpoint import read_model
from lightning_ham.hub.config import ModelConfig, check_weights, make_config
from lightning_ham.hub.files import CARD, CONFIG, PICTURES, WEIGHTS, replacing
from lightning_ham.hub.folder import check_tensors, parse_weights, read_folder, write_weights
from lightning_ham.hub.measured import read_measured
from lightning_ham.hub.places import locate
from lightning_ham.models import TaskModel
from lightning_ham.tasks import Lengths

if TYPE_CHECKING:  # neither is needed to load a model
    from lightning_ham.evaluation import Evaluation
    from lightning_ham.hub.card import TrainingInfo

_log = logging.getLogger(__name__)


class TrainedModel(TaskModel):
    """A model for one task that can be saved, published and loaded.

    How it is used stands at :class:`~lightning_ham.models.TaskModel`.

    Args:
        task: Name of the task.
        controller: Name of the controller.
        controller_options: The controller's keyword arguments; those not given keep their defaults.
    """

    card: Path | None = None
    """The card in the folder that it was loaded from, which may not be there."""
    _measured: Mapping[Lengths, float] | None = None

    @property
    def measured(self) -> Mapping[Lengths, float]:
        """Share of wrong sequences, in [0, 1], by range of lengths, as the card that it was loaded with says."""
        if self._measured is None:
            self._measured = read_measured(self.card) if self.card else {}
        return self._measured

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        evaluation: Evaluation | None = None,
        training: TrainingInfo | None = None,
        name: str | None = None,
        pictures: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write the model's three files to ``folder``, which appears, or changes, only when all are complete.

        Wherever this is cut off, the folder loads as the model that it held, or as this one.

        Args:
            folder: Where to; it is made if it is not there. If it is, its three files and its pictures are replaced,
                and others are left alone.
            evaluation: What was measured on this model, for the card.
            training: How it was trained, for the card.
            name: What the card tells to load it by; the folder's name if None.
            pictures: PNG files that the card shows, by their names in :data:`PICTURES`; they are written, too.

        Raises:
            ValueError: If the model cannot be saved so that it loads, what is said of it is not of it, or a picture is
                none of the card's.
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
        digest = hashlib.sha256(weights).hexdigest()
        config = make_config(self.task_name, self.controller_name, self.controller_options, digest)
        check_tensors(self.state_dict(), self.state_dict(), target)
        with replacing(target) as staging:
            (staging / CONFIG).write_bytes((json.dumps(config, indent=2) + "\n").encode())
            (staging / WEIGHTS).write_bytes(weights)
            loaded = type(self).from_folder(staging)  # what would not load is not kept
            card_name = name or target.name
            links = {picture: picture for picture in pictures}
            card = render_card(loaded, card_name, evaluation, training, pictures=links, is_folder=name is None)
            (staging / CARD).write_bytes(card.encode())
            for file, picture in pictures.items():
                (staging / file).write_bytes(picture)

    def weights_sha256(self) -> str:
        """Return the SHA-256 of the file that the weights are saved in, in hexadecimal digits."""
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

        On the main branch, the commit gets the next free one of the tags ``v1``, ``v2``, ... Where nothing has changed
        since the last push, there is no commit and no tag.

        Args:
            repo_id: ``organisation/name``; it is made if it is not there.
            private: Whether only its owners see it, if it is made now.
            token: A token that may write; by default that of `hf auth login` or HF_TOKEN.
            commit_message: Of the commit.
            revision: The branch, made if it is not there; the main branch if None.
            create_pr: Propose the change in a pull request, to a model that is there.
            endpoint: The Hub's address; HF_ENDPOINT's if None.
            evaluation: What was measured on this model, for the card.
            training: How it was trained, for the card.

        Raises:
            ConnectionError: If the Hub cannot be reached or fails.
            FileNotFoundError: If ``create_pr`` is given and there is no such model.
            PermissionError: If there is no token, or it does not permit this.
            ValueError: If a name cannot be one on the Hub, or what is said of the model is not of it.
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
            FileNotFoundError: If the configuration or the weights are not there.
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
        check_weights(config, weights, folder / WEIGHTS)  # last, as what does not fit says better what is wrong
        model.card = folder / CARD
        return model

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> Self:
        """Load the model from a checkpoint that a training of ours wrote.

        Raises:
            ValueError: If the file is not such a checkpoint, is damaged, or holds more than plain data.
        """
        config, tensors = read_model(Path(path))
        return cls._restore(config, tensors, Path(path), Path(path))

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
    """Load a trained model, ready to answer: what ``save_pretrained`` of a model or a module wrote, or a checkpoint.

    It is looked for in this order, and the log tells where it was found:

    1. what is there as a file or folder;
    2. a model that comes with the package, unless a revision is given: no network, no account;
    3. for another bare name that begins with ``ham-`` and a task's name, such as ``ham-sort-large``, the copy in the
       cache and then the Hub's organisation ``lightning-ham``. Any other bare name is refused at once, with the nearest
       known;
    4. ``organisation/name`` on the Hub (but for ``runs/...``, where run folders are), which is asked for its newest
       commit. Without a connection, the copy in the cache is loaded, with a warning.

    Of a model on the Hub only the files of the fixed set are downloaded (see this module), into the cache that other
    programs share, and the configuration and the weights are checked against their hashes each time.

    Args:
        name_or_path: The name of a model; or the path of a saved model's folder, of a run folder, or of a checkpoint.
        revision: A branch, tag or commit of a model on the Hub; its main branch if None.
        token: For a private model: a token, True for the one that `hf auth login` saved, False for none; None for the
            saved one, or that of HF_TOKEN, if there is one.
        cache_dir: The cache of models from the Hub; that of HF_HOME if None.
        local_files_only: Use no network.
        endpoint: The Hub's address; HF_ENDPOINT's if None.

    Raises:
        ConnectionError: If the Hub cannot be reached, or fails.
        FileNotFoundError: If a path or a name leads to no model, or to none that the token may see.
        PermissionError: If the token does not permit it, or the cache cannot be written to.
        OSError: If the cache cannot be written to for another reason, such as a full disk.
        ValueError: If a name is unknown, or what is found is not a whole and sound model.
    """
    return TrainedModel.from_pretrained(
        name_or_path,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        endpoint=endpoint,
    )
