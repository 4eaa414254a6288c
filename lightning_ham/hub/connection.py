"""Requests to the Hub that end within seconds, and their failures in one clear sentence.

huggingface_hub itself tries a server that is down for 24 seconds, waits without end for one that does not answer, and
sleeps for as long as a busy one asks. Hooks on the requests of its session, in effect in the thread and for the time of
:func:`bounded` only, leave it a single try of everything and two resumptions of a download.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

import httpx2
from huggingface_hub import constants, get_session, get_token
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    hf_raise_for_status,
)
from huggingface_hub.utils.logging import get_verbosity, set_verbosity

_RESUMPTIONS = 2
_FILE_NAME = re.compile(r'(W/)?"?\w[\w.-]*"?')
"""What a header may be that huggingface_hub makes a file's name of."""

Token = str | bool | None
"""A token; or True for the one that is saved, False for none, None for the one that is saved if there is one."""


class _GiveUp(Exception):
    """Ends what huggingface_hub would go on with."""


class _Operation:
    """What is known of the requests of one operation."""

    def __init__(self) -> None:
        self.tries = Counter[tuple[str, str]]()
        self.failure: Exception | None = None

    def give_up(self, failure: Exception) -> NoReturn:
        self.failure = failure
        raise _GiveUp from failure


_operation: ContextVar[_Operation | None] = ContextVar("operation", default=None)


def timeout() -> float:
    """Return the seconds that a server may take to connect, or between two parts of an answer: HF_HUB_ETAG_TIMEOUT."""
    return float(constants.HF_HUB_ETAG_TIMEOUT)


def resolve_endpoint(endpoint: str | None) -> str:
    """Return the address of the Hub that is meant: HF_ENDPOINT's if none is given."""
    return (endpoint or constants.ENDPOINT).rstrip("/")


def resolve_token(token: Token) -> Token:
    """Return a token without white space around it, which would be sent and shown in an error."""
    return token.strip() if isinstance(token, str) else token


@contextmanager
def bounded(action: str, endpoint: str, token: Token, folder: Path | None = None) -> Iterator[None]:
    """Bound the requests that are made within, and say in one sentence what went wrong.

    Args:
        action: What is tried, after "Expected to": ``fetch org/name``.
        endpoint: The Hub's address.
        token: The token that is used.
        folder: Where files are written, if any are.

    Raises:
        ConnectionError: If the Hub cannot be reached, does not answer in time, or fails.
        FileNotFoundError: If it has no such model or revision, or none that the token may see.
        PermissionError: If the token does not permit it, or the folder cannot be written to.
        OSError: If files cannot be written for another reason.
    """
    session = get_session()
    if _before not in session.event_hooks["request"]:
        session.event_hooks = {
            "request": [*session.event_hooks["request"], _before],
            "response": [*session.event_hooks["response"], _after],
        }
    operation = _Operation()
    reset = _operation.set(operation)
    try:
        with _quiet():
            yield
    except (_GiveUp, httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _explained(operation.failure or _cause(error), action, endpoint, token, folder) from error
    finally:
        _operation.reset(reset)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal the progress of small files, and the single tries of what is told as a whole."""
    verbosity = get_verbosity()
    bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    set_verbosity(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        set_verbosity(verbosity)
        if bars:
            enable_progress_bars()


def _before(request: httpx2.Request) -> None:
    """Refuse to send a request again, and let none wait without end."""
    operation = _operation.get()
    if operation is None:
        return
    key = request.method, str(request.url)
    operation.tries[key] += 1
    if operation.tries[key] > (1 + _RESUMPTIONS if request.method == "GET" else 1):
        operation.give_up(httpx2.NetworkError(f"the connection broke, or nothing came for {timeout():g} s"))
    limits = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        kind: min(limits.get(kind) or timeout(), timeout()) for kind in ("connect", "read", "write", "pool")
    }


def _after(response: httpx2.Response) -> None:
    """End at an answer that huggingface_hub would wait after, and at one that names no file of the cache."""
    operation = _operation.get()
    if operation is None:
        return
    if response.status_code in (408, 429) or response.status_code >= 500:
        response.read()
        try:
            hf_raise_for_status(response)
        except HfHubHTTPError as error:
            operation.give_up(error)
    if response.request.method == "HEAD":
        for name in ("X-Repo-Commit", "X-Linked-Etag", "ETag"):
            if not _FILE_NAME.fullmatch(response.headers.get(name, "none")):
                operation.give_up(FileMetadataError(f"the header {name} is {response.headers[name]!r}"))


def _cause(error: BaseException) -> BaseException:
    """Return what lies under the errors that huggingface_hub wraps others in."""
    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _explained(
    error: BaseException, action: str, endpoint: str, token: Token, folder: Path | None
) -> OSError | ValueError:
    kind, reason = _reason(error, endpoint, token)
    if kind is not None:
        return kind(f"Expected to {action}, but {reason}")
    if isinstance(error, OSError) and error.strerror and folder is not None:
        return type(error)(
            f"Expected to {action} into {folder}, but got: {error.strerror}. Make room or give rights there, or choose "
            "another folder by the argument `cache_dir` or the variable HF_HOME."
        )
    if isinstance(error, OSError | RuntimeError):
        return OSError(f"Expected to {action}, but got: {_line(error)}")
    assert isinstance(error, ValueError)
    return error


def _reason(error: BaseException, endpoint: str, token: Token) -> tuple[type[OSError] | None, str]:
    """Return the kind of a failure of the Hub, None if it is none, and what is wrong and to be done in words."""
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, endpoint, token)
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError, "HF_HUB_OFFLINE is set, and nothing is asked of the Hub."
    if isinstance(error, httpx2.TimeoutException):
        return ConnectionError, (
            f"{endpoint} did not answer within {timeout():g} s. Try again, or give it longer with HF_HUB_ETAG_TIMEOUT."
        )
    if isinstance(error, httpx2.HTTPError):
        return ConnectionError, f"{endpoint} cannot be reached ({_line(error)}). Check the connection and try again."
    if isinstance(error, json.JSONDecodeError | FileMetadataError):
        return ConnectionError, (
            f"{endpoint} does not answer as a Hub does ({_line(error)}). Check the argument `endpoint` or HF_ENDPOINT."
        )
    if isinstance(error, OSError) and error.strerror is None and "Consistency check failed" in str(error):
        return ConnectionError, f"{endpoint} sent a file of another length than it said. Try again."
    return None, ""


def _refusal(error: HfHubHTTPError, endpoint: str, token: Token) -> tuple[type[OSError], str]:
    """Return the kind and the words of an answer that is no success."""
    status, said = error.response.status_code, " ".join((error.server_message or "").split())
    has_token = isinstance(token, str) or (token is not False and get_token() is not None)
    log_in = "log in with `hf auth login`, or give the argument `token` or the variable HF_TOKEN."
    if isinstance(error, GatedRepoError):
        return PermissionError, f"{endpoint} shows it only to those that it has admitted: ask for it on its page there."
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError, f"{endpoint} has no such revision of it. Its page there lists its branches and tags."
    if isinstance(error, RemoteEntryNotFoundError):
        return FileNotFoundError, f"{endpoint} no longer has a file of it. Try again."
    if isinstance(error, RepositoryNotFoundError) or (status == 404 and not said):
        if has_token:
            return FileNotFoundError, f"{endpoint} has no model of that name that your token may see. Check both."
        return FileNotFoundError, (
            f"{endpoint} has no model of that name that is public. Check the name; if it is private, {log_in}"
        )
    answer = f"{endpoint} answered {status}{f' ({said})' if said else ''}"
    if status == 401:
        wrong = "The token is not valid" if has_token else "There is no token"
        return PermissionError, f"{answer}. {wrong}: {log_in}"
    if status == 403:
        return PermissionError, f"{answer}. Use a token that permits it: {log_in}"
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        again = f"in {wait} s" if wait else "later"
        return ConnectionError, f"{answer}: too many requests. Try again {again}."
    return ConnectionError, f"{answer}. Try again later."


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
