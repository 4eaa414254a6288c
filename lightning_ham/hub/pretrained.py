"""A trained model as a folder of a fixed set of files, here and on the Hub.

These are ``config.json``, ``model.safetensors`` and ``README.md``, and where they were made, the card's two pictures,
``learning_curve.png`` and ``attention.png``. Only the configuration and the weights are used to load a model.

Nothing that is loaded is imported, evaluated or unpickled, except our own checkpoints, and those as plain
data only (``weights_only``). What does not fit in full is refused before the model is built.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lightning_ham.foreign import quoted, shown
from lightning_ham.hub.address import check_variable
from lightning_ham.hub.checkpoint import MODEL_PREFIX, read_checkpoint
from lightning_ham.hub.config import ModelConfig, check_weights, is_of, make_config, read_config
from lightning_ham.hub.files import CARD, CONFIG, MAX_WEIGHTS, PICTURES, WEIGHTS, expanded, has, put_in_place, saved
from lightning_ham.models import TaskModel
from lightning_ham.tasks import Lengths, task_names

if TYPE_CHECKING:  # neither is needed to load a model
    from lightning_ham.evaluation import Evaluation
    from lightning_ham.hub.card import TrainingInfo

ORGANISATION = "lightning-ham"
"""Where on the Hub a model is that is given by its bare name and does not come with the package."""
BUNDLED = Path(__file__).with_name("weights")
"""The folder of the models that come with the package, each a folder by its name."""
REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""What the name of a model on the Hub is like."""

_RUNS = "runs"
"""Where `fit` makes run folders: a name that begins so is one of them, and is not asked of the Hub."""
_MAX_REPO_ID = 96
"""Most characters of a model's name on the Hub."""
_MAX_HEADER = 1 << 20
"""Most bytes that say which tensors a file has; those of real models have a few thousand."""
_TRIES = 20
"""How often a folder is read at most that is being saved to."""
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

    card: Path | None = None
    """The card in the folder that it was loaded from, which may not be there."""
    _measured: Mapping[Lengths, float] | None = None

    @property
    def measured(self) -> Mapping[Lengths, float]:
        """Share of wrong sequences, in [0, 1], by range of lengths, as the card that it was loaded with says."""
        if self._measured is None:
            from lightning_ham.hub.measured import read_measured

            self._measured = read_measured(self.card) if self.card else {}
        return self._measured

    def save(
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
        weights = self._weights()
        digest = hashlib.sha256(weights).hexdigest()
        config = make_config(self.task_name, self.controller_name, self.controller_options, digest)
        _check_tensors(self.state_dict(), self.state_dict(), target)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            staging.mkdir()
            (staging / CONFIG).write_bytes((json.dumps(config, indent=2) + "\n").encode())
            (staging / WEIGHTS).write_bytes(weights)
            loaded = type(self).from_folder(staging)  # what would not load is not kept
            card_name = name or target.name
            links = {picture: picture for picture in pictures}
            card = render_card(loaded, card_name, evaluation, training, pictures=links, is_folder=name is None)
            (staging / CARD).write_bytes(card.encode())
            for file, picture in pictures.items():
                (staging / file).write_bytes(picture)
            put_in_place(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def weights_sha256(self) -> str:
        """Return the SHA-256 of the file that the weights are saved in, in hexadecimal digits."""
        return hashlib.sha256(self._weights()).hexdigest()

    def _weights(self) -> bytes:
        """Return what the file of the weights holds."""
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.state_dict().items()
        }
        return safetensors.torch.save(tensors, metadata={"format": "pt"})

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
            self.save(folder, evaluation, training, name=repo_id)
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
        """Load a folder that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If the configuration or the weights are not there.
            ValueError: If anything in them is missing, unknown or of a wrong kind; the message names it.
        """
        folder = Path(folder)
        config, weights = _read_folder(folder)
        if "weights_sha256" not in config:
            _log.warning(
                "%s has no hash of the weights: it cannot be checked whether they are those that were saved. Save the "
                "model again.",
                shown(folder / CONFIG),
            )
        model = cls._restore(config, _parse(weights, folder / WEIGHTS), folder / CONFIG, folder / WEIGHTS)
        check_weights(config, weights, folder / WEIGHTS)  # last, as what does not fit says better what is wrong
        model.card = folder / CARD
        return model

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> Self:
        """Load the model from a checkpoint that a training of ours wrote.

        Raises:
            ValueError: If the file is not such a checkpoint, is damaged, or holds more than plain data.
        """
        path = Path(path)
        checkpoint = read_checkpoint(path)
        names = ("task", "controller", "controller_options")
        for name in names:
            if name not in checkpoint.hyper_parameters:
                raise ValueError(
                    f"{shown(path)}: Expected a checkpoint with hyper-parameter {name!r}, but it has none."
                )
        try:
            config = make_config(*(checkpoint.hyper_parameters[name] for name in names))
        except ValueError as error:
            raise ValueError(f"{shown(path)}: {error}") from error
        tensors = {}
        for name, tensor in checkpoint.state.items():
            if name.startswith(MODEL_PREFIX):
                tensors[name.removeprefix(MODEL_PREFIX)] = tensor
            elif not name.startswith(_TRAINING_PREFIXES):
                raise ValueError(f"{shown(path)}: Expected weights of a model, but {quoted(name)} is not one of them.")
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
                    f"{shown(config_file)}: Expected key 'controller_options' to build a controller "
                    f"{config['controller']!r}, but got: {shown(error)}"
                ) from error
            _check_tensors(tensors, expected, weights_file)
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
) -> HAMModel:
    """Load a trained model, ready to answer.

    It is looked for in this order, and the log tells where it was found:

    1. what is there as a file or folder;
    2. a model that comes with the package, unless a revision is given: no network, no account;
    3. for another bare name that begins with ``ham-`` and a task's name, such as ``ham-sort-large``, the copy in the
       cache and then the Hub's :data:`ORGANISATION`. Any other bare name is refused at once, with the nearest known;
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
    return HAMModel.from_pretrained(
        name_or_path,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        endpoint=endpoint,
    )


def bundled_names() -> list[str]:
    """Return the names of the models that come with the package, sorted."""
    return sorted(config.parent.name for config in BUNDLED.glob(f"*/{CONFIG}"))


def locate(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    endpoint: str | None = None,
) -> tuple[Path, str]:
    """Return the model folder or the checkpoint that a name or path stands for, and where that is in words.

    Arguments, order and errors are those of :func:`from_pretrained`. Every further place that models can come from
    belongs here.
    """
    path, name = expanded(name_or_path), os.fspath(name_or_path)
    if _is_there(path):
        if revision is not None:
            raise ValueError(
                f"Expected no `revision` for {shown(name)}, which is a file or folder, but got {quoted(revision)}."
            )
        return _locate_on_disk(path)
    bare = path.name == name and path.suffix != ".ckpt"
    if bare and name in bundled_names() and revision is None:
        return BUNDLED / name, "the models that come with lightning_ham"
    if not bare and (isinstance(name_or_path, Path) or path.parts[0] == _RUNS or not REPO_ID.fullmatch(name)):
        raise FileNotFoundError(
            "Expected the path of a model folder, a run folder or a checkpoint, the name of a model that comes with "
            f"lightning_ham ({_known()}), or that of one on the Hub (organisation/name), but there is no {shown(name)}."
        )
    if bare and not _may_be_published(name):
        closest = difflib.get_close_matches(name, bundled_names(), n=1)
        hint = f" did you mean {closest[0]!r}?" if closest else ""
        raise ValueError(
            f"Unknown model {quoted(name)};{hint} Known models: {_known()}. A model on the Hub is given as "
            "organisation/name, anything else by its path."
        )
    check_variable()
    from lightning_ham.hub.download import cached, fetch

    repo_id = f"{ORGANISATION}/{name}" if bare else name
    if len(repo_id) > _MAX_REPO_ID:
        raise ValueError(
            f"Expected a name on the Hub to have at most {_MAX_REPO_ID} characters, but got {quoted(name)}."
        )
    cache = None if cache_dir is None else Path(cache_dir)
    try:
        if bare and revision is None:
            with contextlib.suppress(ValueError):  # of a damaged copy, which is downloaded again
                copy = cached(repo_id, cache_dir=cache)
                if copy is not None:
                    return copy, f"the cache: {repo_id} at commit {copy.name[:7]}"
        return fetch(
            repo_id,
            revision=revision,
            token=token,
            cache_dir=cache,
            local_files_only=local_files_only,
            endpoint=endpoint,
        )
    except (ConnectionError, FileNotFoundError) as error:
        also = f"These come with lightning_ham: {_known()}." if bare else f"There is no folder {name} here either."
        raise type(error)(f"{error} {also}") from error


def _known() -> str:
    return ", ".join(bundled_names()) or "none"


def _may_be_published(name: str) -> bool:
    """Return whether a bare name is one that a model on the Hub may have: ``ham-<task>`` or ``ham-<task>-<more>``."""
    tasks = (task.replace("_", "-") for task in task_names())
    return any(re.fullmatch(rf"ham-{re.escape(task)}(-[\w.-]*\w)?", name) for task in tasks)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # the name is too long for a file, or folders above may not be looked into
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def _locate_on_disk(path: Path) -> tuple[Path, str]:
    if path.is_dir():
        return _locate_in_folder(path)
    if path.suffix != ".ckpt":
        raise ValueError(f"Expected a model's folder or a checkpoint (.ckpt), but got the file {shown(path)}.")
    return path, f"the checkpoint {shown(path)}"


def _locate_in_folder(folder: Path) -> tuple[Path, str]:
    """Return what to load from a folder: the model saved in it, or the best that a run folder has."""
    for model in (folder, folder / "model"):
        if has(model, CONFIG):
            return model, f"the folder {shown(model)}"
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = folder / "checkpoints" / name
        if checkpoint.is_file():
            return checkpoint, f"the checkpoint {shown(checkpoint)}"
    raise FileNotFoundError(
        f"Expected a folder with {CONFIG}, or a run folder with model/{CONFIG}, checkpoints/best.ckpt or "
        f"checkpoints/last.ckpt, but {shown(folder)} has none of them."
    )


def _read_folder(folder: Path) -> tuple[ModelConfig, bytes]:
    """Return the configuration in a folder and the content of its file of weights, which belong together.

    If a model is saved to the folder between the two, they do not: then both are read anew. If nothing has changed
    there, what they are is not for this to tell.
    """
    before = None
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            found = _read_folder_once(folder)
            stat = saved(folder, WEIGHTS).stat()
            if is_of(*found) or before == (stat.st_ino, stat.st_ctime_ns):
                return found
            before = stat.st_ino, stat.st_ctime_ns
    return _read_folder_once(folder)


def _read_folder_once(folder: Path) -> tuple[ModelConfig, bytes]:
    for name in (CONFIG, WEIGHTS):
        if not has(folder, name):
            raise FileNotFoundError(
                f"Expected a folder with {CONFIG} and {WEIGHTS}, but {shown(folder)} has no {name}."
            )
    config = read_config(saved(folder, CONFIG))
    with saved(folder, WEIGHTS).open("rb") as file:
        content = file.read(MAX_WEIGHTS + 1)
    if len(content) > MAX_WEIGHTS:
        raise ValueError(f"{shown(folder / WEIGHTS)}: Expected at most {MAX_WEIGHTS:,} bytes, but got a larger file.")
    return config, content


def _parse(weights: bytes, file: Path) -> dict[str, Tensor]:
    """Return the tensors in the content of a file of weights.

    Raises:
        ValueError: If that is no such file, or says so much of its tensors that to read it would take memory and time.
    """
    whole = f"{shown(file)}: Expected a whole safetensors file, but got"
    header = int.from_bytes(weights[:8], "little")
    if header > _MAX_HEADER:
        raise ValueError(f"{whole}: a header of {header:,} bytes (at most {_MAX_HEADER:,}); fetch or save it again.")
    try:
        return safetensors.torch.load(weights)
    except Exception as error:  # it says in Rust's words, torch's or none what it cannot take
        reason = shown(error) or type(error).__name__
        raise ValueError(f"{whole}: {reason}; fetch or save it again.") from error


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    """Raise a ValueError unless ``tensors`` are finite and have exactly the names, shapes and types of ``expected``."""
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    for names, complaint in ((missing, "is missing"), (unexpected, "is not one of the model's")):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(
                f"{shown(file)}: Expected exactly the weights of the model, but {quoted(names[0])} {complaint}{others}."
            )
    for name, like in expected.items():
        got = tensors[name]
        if got.shape != like.shape:
            shape = quoted(list(got.shape))
            raise ValueError(f"{shown(file)}: Expected {name!r} of shape {list(like.shape)}, but got {shape}.")
        if got.dtype != like.dtype:
            raise ValueError(f"{shown(file)}: Expected {name!r} of type {like.dtype}, but got {got.dtype}.")
        if not got.isfinite().all():
            raise ValueError(
                f"{shown(file)}: Expected finite numbers in {name!r}, but got nan or inf: its training broke up."
            )
