"""What the commands share: parsers that complain in one line, and quiet ends."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TextIO

from lightning_ham.foreign import LONGEST_MESSAGE, quoted, shown


class CommandParser(argparse.ArgumentParser):
    """A parser that complains in one line, with the nearest option to one that is mistyped.

    Args:
        command: Name of the command's module in the package; empty for the package's own.
        description: What the command does, for its help.
        epilog: What stands below the options in its help.
    """

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"python -m lightning_ham.{command}".removesuffix("."),
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse ``argv``, by default the process's; options and files may come in any order."""
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            word = unknown[0].partition("=")[0]
            options = [option for action in self._actions for option in action.option_strings]
            closest = difflib.get_close_matches(word, options, n=1)
            hint = f"; did you mean {closest[0]}?" if closest else "; see --help."
            self.error(f"Unknown argument {quoted(word)}{hint}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Print ``message`` in one line and exit with status 2."""
        self.exit(2, f"error: {shown(message, LONGEST_MESSAGE)}\n")


def positive(text: str) -> int:
    """Return the whole number of at least 1 that an argument is."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"Expected a whole number of at least 1, but got {text!r}")
    return int(text)


@contextlib.contextmanager
def on_one_line(kind: type[Warning]) -> Iterator[None]:
    """Print warnings of a kind as a line each on standard error, and each text once, however they are filtered."""
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
    """Run a command as this process, and end without a traceback where its reader or its user ends it."""
    try:
        status = main()
        if sys.stdout is not None:  # it may have been closed from the beginning
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
