"""Shared by the commands: parsers with one-line errors, and exits without tracebacks."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NoReturn, TextIO

from lightning_ham.console import as_called, called
from lightning_ham.foreign import LONGEST_MESSAGE, closest_to, quoted, shown


class CommandParser(argparse.ArgumentParser):
    """A parser with one-line errors, which suggest the closest option to a mistyped one.

    Args:
        command: Name of the command; empty for the package's own.
        description: What the command does, for its help.
        epilog: Text below the options in its help.
    """

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=called(command),
            description=as_called(description),
            epilog=as_called(epilog),
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse ``argv``, by default the process's; options and files may come in any order."""
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            word = unknown[0].partition("=")[0]
            options = [option for action in self._actions for option in action.option_strings]
            closest = closest_to(word, options)
            hint = f"; did you mean {closest}?" if closest else "; see --help."
            self.error(f"Unknown argument {quoted(word)}{hint}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Print ``message`` in one line and exit with status 2."""
        self.exit(2, f"error: {shown(message, LONGEST_MESSAGE)}\n")


def positive(text: str) -> int:
    """Return an argument as a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"Expected a whole number of at least 1, but got {text!r}")
    return int(text)


def natural(text: str) -> int:
    """Return an argument as a whole number of at least 0."""
    return 0 if text.isascii() and text.isdigit() and not int(text) else positive(text)


def recipe_overrides(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Separate the options of a command from keys of recipes, ``--group.key=value`` or ``--group.key value``.

    >>> recipe_overrides(["sort", "--data.batch_size", "8", "--jobs", "1", "--trainer.max_epochs=2"])
    (['sort', '--jobs', '1'], ('--data.batch_size=8', '--trainer.max_epochs=2'))
    """
    own, overrides = [], []
    words = iter(argv)
    for word in words:
        match = re.match(r"--\w+\.[\w.]+(=|$)", word)
        if match is None:
            own.append(word)
        elif match[1]:
            overrides.append(word)
        else:
            value = next(words, None)
            if value is None:
                own.append(word)  # to be refused
            else:
                overrides.append(f"{word}={value}")
    return own, tuple(overrides)


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a reader of an argument that lists some of the known names, separated by commas."""

    def names(text: str) -> list[str]:
        chosen = [name.strip() for name in text.split(",")]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"Expected some of {', '.join(known)}, but got {name!r}")
        return chosen

    return names


def time_limit(text: str) -> datetime.timedelta:
    """Return the duration in an argument such as ``90s``, ``20m`` or ``1h``."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds < 1:
        raise argparse.ArgumentTypeError(f"Expected a time such as 90s, 20m or 1h, but got {text!r}")
    return datetime.timedelta(seconds=seconds)


@contextlib.contextmanager
def on_one_line(kind: type[Warning]) -> Iterator[None]:
    """Print warnings of a kind on standard error as one line each, each text once, regardless of filters."""
    printed = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", kind)
        show = warnings.showwarning

        def print_once(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, kind):
                show(message, category, filename, lineno, file, line)
            elif str(message) not in printed:
                printed.add(str(message))
                sys.stderr.write(f"warning: {' '.join(str(message).split())}\n")

        warnings.showwarning = print_once
        yield


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command and exit; no traceback for a closed pipe, Ctrl-C or a full disk."""
    _complete_streams()
    status: int | str | None
    try:
        try:
            status = main()
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        _discard_output()
        status = 0
    except OSError as error:
        _discard_output()
        with suppress(OSError):
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _complete_streams() -> None:
    """Open missing standard streams, and make standard output escape characters that it cannot encode."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            while opened < number:  # so that no file of ours gets a standard stream's number
                opened = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(opened, True)
            setattr(sys, name, open(opened, mode, closefd=False))  # noqa: SIM115 - stays open
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Discard output that could not be written, so that Python does not report it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
