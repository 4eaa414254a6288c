"""Watch models at work in a browser: ``python -m lightning_ham.demo [MODEL ...] [--output FOLDER]``.

The page is a folder of files that needs no server and no network: ``--output`` writes it, and its index.html opens in
any browser. The folder is also a complete static Space for the Hub.
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, run
from lightning_ham.hub import TrainedModel, from_pretrained
from lightning_ham.page.server import make_server
from lightning_ham.page.site import comparisons, default_models, site_files, write_site


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "demo",
        "Open a page that plays models in your browser: every descent in the tree, what is read, written and put out,\n"
        "beside the right answer. Ctrl-C ends it. With --output, write the page to a folder instead: index.html opens\n"
        "in any browser without a network, and the folder is a complete static Space for the Hub.",
    )
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        default=[],
        help="run folders, checkpoints, saved models or names (default: all models of the package)",
    )
    parser.add_argument("--output", metavar="FOLDER", help="write the page here instead of opening it")
    parser.add_argument("--port", type=_port, metavar="N", help="port on this machine (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"Expected a port from 1 to 65535, but got {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    if arguments.output is not None and (arguments.port or arguments.no_browser):
        parser.error("Expected --output alone, or --port and --no-browser without it, but got both.")
    try:
        files = site_files(_models(arguments.models))
        if arguments.output is not None:
            sys.stdout.write(f"{write_site(files, arguments.output)}\n")
            return 0
        server = make_server(files, arguments.port or 0)
    except BrokenPipeError:
        raise
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    with server:
        address = f"http://127.0.0.1:{server.server_port}/"
        sys.stdout.write(f"{address} (Ctrl-C ends it)\n")
        sys.stdout.flush()
        if not arguments.no_browser:
            webbrowser.open(address)
        server.serve_forever()
    return 0


def _models(names: Sequence[str]) -> list[tuple[str, TrainedModel]]:
    """Return the models of the page: all of the package by default."""
    if not names:
        return default_models()
    models = [(_name(name), from_pretrained(name)) for name in names]
    tasks = {model.task_name for _, model in models if model.accesses_per_output}
    alone = {model.task_name for _, model in models if not model.accesses_per_output}
    return models + comparisons(sorted(tasks - alone))


def _name(name_or_path: str) -> str:
    """Return what to call a model on the page: the name of its run folder, if it is given by a path."""
    path = Path(name_or_path)
    if not path.exists():
        return name_or_path
    parts = [part.removesuffix(".ckpt") for part in path.resolve().parts]
    return next((part for part in reversed(parts) if part not in ("model", "checkpoints", "best", "last")), parts[-1])


if __name__ == "__main__":
    run(main)
