"""Write a model for other programs: ``python -m lightning_ham.export MODEL --format FORMAT -o FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, run
from lightning_ham.exporting import export_model, format_names
from lightning_ham.hub import from_pretrained


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "export",
        "Write a model for other programs, in one of these formats:\n"
        "  json  one file with the weights and all that is known of the model, of any kind\n"
        "  onnx  a graph for each learned part of a model with a memory, for ONNX Runtime, and a manifest that says\n"
        "        how to put them together; needs pip install 'lightning-ham[export]'",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint, a saved model or a name")
    parser.add_argument("--format", required=True, choices=format_names(), help="what to write")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="where to; its files of the same names are replaced"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    try:
        model = from_pretrained(arguments.model)
        for path in export_model(model, _name(arguments.model), arguments.format, arguments.output):
            sys.stdout.write(f"{path}\n")
    except BrokenPipeError:
        raise
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    return 0


def _name(name_or_path: str) -> str:
    """Return the name of a model: that of its folder or file, if it is given by a path."""
    path = Path(name_or_path)
    return path.resolve().name.removesuffix(".ckpt") if path.exists() else name_or_path


if __name__ == "__main__":
    run(main)
