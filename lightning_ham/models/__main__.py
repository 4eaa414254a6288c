"""List the available trained models: ``python -m lightning_ham.models``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from lightning_ham.command_line import CommandParser, run
from lightning_ham.foreign import shown
from lightning_ham.hub import PretrainedModel, list_pretrained
from lightning_ham.hub.supervision import in_words


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "models",
        "Show the trained models that can be loaded by name without a network: those that come with the package, and\n"
        "those that were downloaded from the Hub. Errors are the share of wrong sequences, by range of lengths.\n"
        "Supervision is what training told a model: the answers alone, or also echo (outputs that repeat a part of\n"
        "the input or of the answer), state (outputs that tell what state the memory is in), hints (other outputs\n"
        "that are not scored), branches (which way an operation goes at a node of known contents) and guide (which\n"
        "leaf to attend to). A certified model is proven right for every capacity.",
    )
    parser.add_argument("--cache_dir", metavar="FOLDER", help="the cache of models from the Hub (default: HF_HOME's)")
    parser.add_argument("--json", action="store_true", help="print one JSON array instead of a table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    try:
        models = list_pretrained(arguments.cache_dir)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    text = json.dumps([model._asdict() for model in models], indent=2) if arguments.json else table(models)
    sys.stdout.write(f"{text}\n")
    return 0


def table(models: Sequence[PretrainedModel]) -> str:
    """Render models as lines of text, with a column for every evaluated range of lengths."""
    ranges = sorted({span for model in models for span in model.errors}, key=_ends)
    rows = [["name", "task", "supervision", "certified", *(f"wrong, {span}" for span in ranges), "size", "where"]]
    rows += [
        [
            model.name,
            model.task,
            in_words(model.supervision),
            "yes" if model.certified else "",
            *(f"{100 * model.errors[span]:.3g} %" if span in model.errors else "" for span in ranges),
            f"{model.size / 1000:,.0f} kB",
            model.where,
        ]
        for model in models
    ]
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[4:-1] = [cell.rjust(width) for cell, width in zip(row[4:-1], widths[4:-1], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _ends(span: str) -> tuple[list[int], str]:
    """Return the sort key of a range of lengths: its numbers, if any, then its name."""
    return [int(part) for part in span.split("-") if part.isascii() and part.isdigit()], span


if __name__ == "__main__":
    run(main)
