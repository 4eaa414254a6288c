"""Pushes a saved model or a dataset to the Hub: its files in one commit, and a tag for the version."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, cast

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetInfo,
    HfApi,
    ModelInfo,
    constants,
    get_session,
    get_token,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    hf_raise_for_status,
    validate_repo_id,
)

from lightning_ham import __version__
from lightning_ham.foreign import quoted, shown
from lightning_ham.hub.address import shown_address
from lightning_ham.hub.card import eval_results
from lightning_ham.hub.connection import Token, bounded, resolve_endpoint, resolve_token, timeout
from lightning_ham.hub.files import CARD, EVAL_RESULTS, OPTIONAL, TABLE

_log = logging.getLogger(__name__)


def check_name(repo_id: str) -> None:
    """Raise a ValueError if ``repo_id`` is not a valid name on the Hub."""
    if repo_id.count("/") != 1:
        raise ValueError(
            f"Expected organisation/name on the Hub, or your user name and a name, but got {quoted(repo_id)}."
        )
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise type(error)(shown(error)) from error


def check_token(repo_id: str, token: Token = None) -> None:
    """Raise a PermissionError if there is no token to push with; needs no network."""
    given = resolve_token(token)
    if not (given if isinstance(given, str) else given is not False and get_token()):
        raise PermissionError(
            f"Expected a token to push to {repo_id} with, but there is none: log in with `hf auth login`, or give the "
            "argument `token` or the variable HF_TOKEN."
        )


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: Token = None,
    commit_message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    endpoint: str | None = None,
) -> str:
    """Upload the model's files in ``folder``; return the model's address on the Hub.

    The results in the card also go to ``.eval_results/``, in the Hub's newer form. Pictures, results and a certificate
    that ``folder`` lacks are removed from the Hub; all other files stay. This makes one commit on top of the newest, or
    none if nothing has changed. After a failure, the files on the Hub are unchanged, and you can push again.

    Args and errors: see :meth:`lightning_ham.hub.TrainedModel.push_to_hub`.
    """
    files: dict[str, Path | bytes] = {file.name: folder / file.name for file in TABLE if (folder / file.name).is_file()}
    results = eval_results((folder / CARD).read_text(encoding="utf-8"))
    if results:
        files[EVAL_RESULTS] = results.encode()
    return push_files(
        files,
        repo_id,
        removable=(*OPTIONAL, EVAL_RESULTS),
        private=private,
        token=token,
        commit_message=commit_message,
        revision=revision,
        create_pr=create_pr,
        endpoint=endpoint,
    )


def push_files(
    files: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    kind: Literal["model", "dataset"] = "model",
    removable: Collection[str] = (),
    private: bool | None = None,
    token: Token = None,
    commit_message: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    endpoint: str | None = None,
) -> str:
    """Upload files, a card among them, to a model or a dataset; return its address on the Hub.

    The Hub checks the card first: if it refuses the card, nothing is created or changed there.

    Args:
        files: Files, or their contents, by their names on the Hub.
        repo_id: ``organisation/name``; created if missing.
        kind: What it is on the Hub.
        removable: Names of files to remove from the Hub if ``files`` lacks them.
        private: As for :meth:`lightning_ham.hub.TrainedModel.push_to_hub`, and so are the others.
        token: A token that may write.
        commit_message: Message of the commit.
        revision: The branch.
        create_pr: Propose the change in a pull request.
        endpoint: The Hub's address.

    Raises:
        ValueError: If the Hub refuses the card.
        OSError: See :meth:`lightning_ham.hub.TrainedModel.push_to_hub`.
    """
    endpoint, token = resolve_endpoint(endpoint), resolve_token(token)
    api = HfApi(endpoint, token, library_name="lightning-ham", library_version=__version__)
    branch = revision or constants.DEFAULT_REVISION
    with bounded(f"push to {repo_id}", endpoint, token):
        refusals = _refusals(files[CARD], kind, endpoint, token)
    if refusals:
        raise ValueError(
            f"Expected to push to {repo_id}, but {shown_address(endpoint)} refuses its card: "
            f"{shown('; '.join(refusals))}. Nothing was uploaded."
        )
    with bounded(f"push to {repo_id}", endpoint, token):
        if not create_pr:
            api.create_repo(repo_id, private=private, repo_type=kind, exist_ok=True)
            if branch != constants.DEFAULT_REVISION and not branch.startswith("refs/"):
                api.create_branch(repo_id, branch=branch, repo_type=kind, exist_ok=True)
        info = cast(ModelInfo | DatasetInfo, api.repo_info(repo_id, revision=branch, repo_type=kind, timeout=timeout()))
        there = {file.rfilename for file in info.siblings or []}
        with warnings.catch_warnings(record=True) as warned:  # the Hub's remarks about the card
            commit = api.create_commit(
                repo_id,
                [
                    *(CommitOperationAdd(name, content) for name, content in files.items()),
                    *(CommitOperationDelete(name) for name in removable if name in there and name not in files),
                ],
                commit_message=commit_message or f"Upload with lightning_ham {__version__}",
                repo_type=kind,
                revision=branch,
                create_pr=create_pr,
                parent_commit=info.sha,
            )
    for warning in warned:
        _log.warning("%s", shown(warning.message))
    address = f"{shown_address(endpoint)}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    if commit.pr_url:
        address = shown_address(commit.pr_url)
        _log.info("Proposed in %s", address)
        return address
    changed, oid = commit.oid != info.sha, shown(commit.oid)[:7]
    what = f"Pushed {', '.join(files)}" if changed else "Nothing has changed since"
    if create_pr or branch != constants.DEFAULT_REVISION:
        address = f"{address}/tree/{branch}"
        _log.info("%s commit %s: %s", what if not changed else f"{what} in", oid, address)
        return address
    with bounded(f"tag what was pushed to {repo_id}", endpoint, token):
        tag = _tag(api, repo_id, commit.oid, kind)
    _log.info("%s commit %s, version %s: %s", what if not changed else f"{what} in", oid, tag, address)
    return address


def _refusals(card: Path | bytes, kind: str, endpoint: str, token: Token) -> list[str]:
    """Return what the Hub finds wrong with a card's metadata; huggingface_hub asks so itself, but only later."""
    content = (card if isinstance(card, bytes) else card.read_bytes()).decode()
    response = get_session().post(
        f"{endpoint}/api/validate-yaml",
        json={"content": content, "repoType": kind},
        headers=build_hf_headers(token=token, library_name="lightning-ham", library_version=__version__),
    )
    if response.status_code != 400:
        hf_raise_for_status(response)
        return []
    return [shown(error["message"]) for error in response.json()["errors"]] or ["its metadata is invalid"]


def _tag(api: HfApi, repo_id: str, commit: str, kind: str) -> str:
    """Return the version of a commit; tag it now if it has none."""
    versions = {}
    for tag in api.list_repo_refs(repo_id, repo_type=kind).tags:
        if match := re.fullmatch("v([0-9]{1,9})", tag.name):
            versions[int(match[1])] = tag.target_commit
    for number, target in versions.items():
        if target == commit:
            return f"v{number}"
    new = f"v{max(versions, default=0) + 1}"
    api.create_tag(repo_id, tag=new, revision=commit, repo_type=kind)
    return new
