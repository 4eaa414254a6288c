"""The files of the page with the models that it plays, for a folder or a static Space."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

from lightning_ham.exporting.json_file import FILE, to_json
from lightning_ham.foreign import shown
from lightning_ham.hub import TrainedModel, from_pretrained
from lightning_ham.hub.files import CONFIG
from lightning_ham.hub.places import bundled_names
from lightning_ham.page.bundle import bundled
from lightning_ham.tasks import built_in_tasks
from lightning_ham.whole_file import replace_file

PAGE = "index.html"
"""The file to open."""

_ASSETS = Path(__file__).with_name("assets")
_BESIDE = Path(__file__).with_name("beside")
"""LSTMs without a memory, in a folder for each task, which the page shows beside the models of the package."""
_CONTROLLERS = ("lstm_ham", "raw_ham", "lstm", "lstm_attention")
"""Those that the page's JavaScript can run."""


def default_models() -> list[tuple[str, TrainedModel]]:
    """Return the package's models with their names, in the order of the paper's tasks, and the LSTMs beside them."""
    order = [task.name for task in built_in_tasks()]
    models = [(name, from_pretrained(name)) for name in bundled_names()]
    models.sort(key=lambda named: order.index(named[1].task_name))
    return models + comparisons(order)


def comparisons(tasks: Iterable[str]) -> list[tuple[str, TrainedModel]]:
    """Return the LSTMs without a memory, with their names, that there are for these tasks."""
    folders = (_BESIDE / task for task in tasks)
    return [(f"lstm-{folder.name}", from_pretrained(folder)) for folder in folders if (folder / CONFIG).is_file()]


def site_files(models: Iterable[tuple[str, TrainedModel]]) -> dict[str, bytes]:
    """Return the files of the page, contents by names.

    Args:
        models: Names and models, in the order of the page; equal names get numbers.

    Raises:
        ValueError: If there is no model, or the page cannot run one: it knows the built-in tasks and controllers.
    """
    documents = []
    names: set[str] = set()
    for name, model in models:
        _check(name, model)
        unique, number = name, 1
        while unique in names:
            number += 1
            unique = f"{name} {number}"
        names.add(unique)
        documents.append(json.loads(to_json(model, unique)[FILE]))
    if not documents:
        raise ValueError("Expected at least one model to show, but got none.")
    modules = {path.name: path.read_text(encoding="utf-8") for path in sorted((_ASSETS / "js").glob("*.js"))}
    content = json.dumps(documents, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    texts = {
        "page.js": bundled(modules, "app.js"),
        "page.css": (_ASSETS / "page.css").read_text(encoding="utf-8"),
        "models.js": f"globalThis.lightningHamModels = {content};\n",
        "README.md": _space_card(documents),
        PAGE: (_ASSETS / PAGE).read_text(encoding="utf-8"),
    }
    return {name: text.encode() for name, text in texts.items()}


def write_site(files: Mapping[str, bytes], folder: str | os.PathLike[str]) -> Path:
    """Write the files of the page; return the file to open, which is written last.

    Args:
        files: From :func:`site_files`.
        folder: Where to; created if missing. Files of the same names are replaced.

    Raises:
        OSError: If the folder cannot be written to; ``NotADirectoryError`` if it is a file.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"Expected a folder for the page, but got the file {shown(folder)}.")
    target.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        replace_file(target / name, content, f".{name}.{os.getpid()}")
    return target / PAGE


def _check(name: str, model: TrainedModel) -> None:
    known = [task.name for task in built_in_tasks()]
    if model.task_name not in known:
        raise ValueError(
            f"Expected a model of one of the tasks {', '.join(known)}, which the page knows, but {shown(name)} is "
            f"one of {model.task_name!r}."
        )
    if model.controller_name not in _CONTROLLERS:
        raise ValueError(
            f"Expected a model with one of the controllers {', '.join(_CONTROLLERS)}, which the page can run, but "
            f"{shown(name)} has {model.controller_name!r}."
        )


def _space_card(documents: Iterable[Mapping[str, object]]) -> str:
    """Return the ``README.md`` that makes the folder a static Space."""
    names = "\n".join(f"- `{document['name']}` ({document['task']})" for document in documents)
    template = Template((_ASSETS / "space.md").read_text(encoding="utf-8"))
    return template.substitute(models=names)
