"""Requests to the Hub that end within seconds, with each failure in one clear sentence.

By itself, huggingface_hub tries for 24 seconds to reach a server that is down, waits forever for one that does not
answer, and sleeps as long as a busy one asks. Hooks on its session, active only within :func:`bounded`, allow one try
of each request, and two resumptions of a download. Transfers by hf_xet do not use that session and have their own
limits.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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

from lightning_ham.foreign import quoted, shown
from lightning_ham.hub.address import shown_address, without_passwords

_RESUMPTIONS = 2
_TALKATIVE = ("utils._http", "file_download", "hf_api")
"""Loggers of huggingface_hub that report single tries, and that there was nothing to do."""
_FILE_NAME = re.compile(r'(W/)?"?\w[\w.-]*"?')
"""Valid form of headers that huggingface_hub turns into file names."""

_MALFORMED = (AttributeError, LookupError, TypeError)
"""Errors that huggingface_hub raises for an answer in JSON of an unexpected form."""

_log = logging.getLogger(__name__)

Token = str | bool | None
"""A token; or True for the saved one, False for none, None for the saved one if there is one."""


class _GiveUp(Exception):
    """Stops huggingface_hub from trying further."""


class _Operation:
    """The requests of one operation so far."""

    def __init__(self) -> None:
        self.tries = Counter[tuple[str, str]]()
        self.others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        """Threads of others. Threads that start later are taken to be the operation's own."""


_operations: list[_Operation] = []
"""Running operations, the latest last."""


def _operation() -> _Operation | None:
    """Return the operation of the current thread, if any."""
    return next((each for each in reversed(_operations) if threading.get_ident() not in each.others), None)


def timeout() -> float:
    """Return the limit in seconds for connecting, and between two parts of an answer: HF_HUB_ETAG_TIMEOUT.

    Requests that change something on the Hub get three times as long.
    """
    return float(constants.HF_HUB_ETAG_TIMEOUT)


def resolve_endpoint(endpoint: str | None) -> str:
    """Return the address of the Hub: HF_ENDPOINT's by default."""
    return (endpoint or constants.ENDPOINT).rstrip("/")


def resolve_token(token: Token) -> Token:
    """Return a token without surrounding white space, which would be sent, and shown in an error."""
    return token.strip() if isinstance(token, str) else token


@contextmanager
def bounded(action: str, endpoint: str, token: Token, folder: Path | None = None) -> Iterator[None]:
    """Limit the time of requests within the context, and report failures in one sentence.

    Args:
        action: The words after "Expected to", such as ``fetch org/name``.
        endpoint: The Hub's address; messages leave out a password in it.
        token: The token in use.
        folder: The folder for downloaded files, if any.

    Raises:
        ConnectionError: If the Hub cannot be reached, does not answer in time, or fails.
        FileNotFoundError: If it has no such model or revision, or hides it from the token.
        PermissionError: If the token does not permit the action, or the folder cannot be written to.
        OSError: If files cannot be written for another reason.
    """
    session = get_session()
    if _before not in session.event_hooks["request"]:
        session.event_hooks = {
            "request": [*session.event_hooks["request"], _before],
            "response": [*session.event_hooks["response"], _after],
        }
    for name in _TALKATIVE:
        logging.getLogger(f"huggingface_hub.{name}").addFilter(_is_shown)  # adding it again has no effect
    operation = _Operation()
    _operations.append(operation)
    try:
        with _without_bars(), _with_short_warnings():
            yield
    except (_GiveUp, httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError, *_MALFORMED) as error:
        explained = _explained(_cause(error), action, shown_address(endpoint), token, folder)
        raise explained from (error if "@" not in endpoint else None)  # its text may contain the password
    finally:
        _operations.remove(operation)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Show no progress: all files are small."""
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _with_short_warnings() -> Iterator[None]:
    """Log huggingface_hub's warnings as one short line each: they may quote a server's answer."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _log.warning("%s", shown(without_passwords(str(message))))
        yield


def _is_shown(record: logging.LogRecord) -> bool:
    """Suppress log records of an operation, whose outcome is reported as a whole at the end."""
    return _operation() is None or record.levelno >= logging.ERROR


def _before(request: httpx2.Request) -> None:
    """Limit how often a request is repeated and how long it waits."""
    operation = _operation()
    if operation is None:
        return
    key = request.method, str(request.url)
    operation.tries[key] += 1
    if operation.tries[key] > (1 + _RESUMPTIONS if request.method == "GET" else 1):
        raise _GiveUp from httpx2.NetworkError("the connection broke, or nothing came in time")
    given = request.extensions.get("timeout", {})
    most = timeout() if request.method in ("GET", "HEAD") else 3 * timeout()
    request.extensions["timeout"] = {
        kind: min(given.get(kind) or most, most) for kind in ("connect", "read", "write", "pool")
    }


def _after(response: httpx2.Response) -> None:
    """Give up on answers after which huggingface_hub would wait, and on invalid file names for the cache."""
    if _operation() is None:
        return
    if response.status_code in (408, 429) or response.status_code >= 500:
        response.read()
        try:
            hf_raise_for_status(response)
        except HfHubHTTPError as error:
            raise _GiveUp from error
    if response.request.method == "HEAD":
        for name in ("X-Repo-Commit", "X-Linked-Etag", "ETag"):
            if not _FILE_NAME.fullmatch(response.headers.get(name, "none")):
                raise _GiveUp from FileMetadataError(f"the header {name} is {quoted(response.headers[name])}")


def _cause(error: BaseException) -> BaseException:
    """Return the original cause of errors that huggingface_hub and this module wrap."""
    while isinstance(error, _GiveUp | RuntimeError | LocalEntryNotFoundError) and error.__cause__ is not None:
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
            f"Expected to {action} into {shown(folder)}, but got: {error.strerror}. Make room or give rights there, "
            "or choose another folder by the argument `cache_dir` or the variable HF_HOME."
        )
    if isinstance(error, OSError | RuntimeError):
        return OSError(f"Expected to {action}, but got: {_line(error)}")
    assert isinstance(error, ValueError)
    return error if str(error) == _line(error) else ValueError(_line(error))


def _reason(error: BaseException, endpoint: str, token: Token) -> tuple[type[OSError] | None, str]:
    """Return the type of a failure of the Hub (else None), and words that say what is wrong and what to do."""
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, endpoint, token)
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError, "HF_HUB_OFFLINE is set, and nothing is asked of the Hub."
    if isinstance(error, httpx2.TimeoutException):
        return ConnectionError, (
            f"{endpoint} did not answer in time. Try again, or give it more than {timeout():g} s: HF_HUB_ETAG_TIMEOUT."
        )
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):  # its text may contain part of a password
        return (
            ConnectionError,
            f"{endpoint} is not the address of a server. Check the argument `endpoint` or HF_ENDPOINT.",
        )
    if isinstance(error, httpx2.HTTPError):
        return ConnectionError, f"{endpoint} cannot be reached ({_line(error)}). Check the connection and try again."
    if isinstance(error, (json.JSONDecodeError, FileMetadataError, *_MALFORMED)):
        return ConnectionError, (
            f"{endpoint} does not answer as a Hub does ({_line(error)}). Check the argument `endpoint` or HF_ENDPOINT."
        )
    if isinstance(error, OSError) and error.strerror is None and "Consistency check failed" in str(error):
        return ConnectionError, f"{endpoint} sent a file of another length than it said. Try again."
    return None, ""


def _refusal(error: HfHubHTTPError, endpoint: str, token: Token) -> tuple[type[OSError], str]:
    """Return the type of error and the words for an unsuccessful answer."""
    status, said = error.response.status_code, shown(error.server_message or "")
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
        again = f"in {shown(wait, 40)} s" if wait else "later"
        return ConnectionError, f"{answer}: too many requests. Try again {again}."
    return ConnectionError, f"{answer}. Try again later."


def _line(error: BaseException) -> str:
    return shown(without_passwords(str(error))) or type(error).__name__
