"""Text about an evaluation: its table, percentages and mistakes."""

from __future__ import annotations

from lightning_ham.evaluation.record import Evaluation, LengthResult, span
from lightning_ham.tasks import find_task

_COLUMNS = (
    "lengths",
    "leaves",
    "episodes",
    "wrong",
    "sequence error",
    "95 % interval",
    "symbol error",
    "bit error",
    "episodes/s",
)


def table(evaluation: Evaluation) -> str:
    """Render an evaluation as lines of text: a title, then a row for every range of lengths.

    The title also states the lengths in the task's own units if those are not cells.
    """
    title = (
        f"{evaluation['task']} with {evaluation['controller']}, {evaluation['num_parameters']:,} parameters, "
        f"evaluation seed {evaluation['seed']}"
    )
    task = find_task(evaluation["task"])
    if task:
        sizes = task.sizes_in_words(result["lengths"] for result in evaluation["results"])
        title += f". {sizes}" if sizes else ""
    rows = [list(_COLUMNS)]
    for result in evaluation["results"]:
        low, high = result["interval"]
        rows.append(
            [
                span(result),
                f"{result['capacity']:,}",
                f"{result['episodes']:,}",
                f"{result['wrong_sequences']:,}",
                percent(result["sequence_error"]),
                f"{percent(low)} to {percent(high)}",
                percent(result["symbol_error"]),
                percent(result["bit_error"]),
                f"{result['episodes_per_second']:,.0f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([title, *lines])


def percent(share: float) -> str:
    """Return a share as a percentage with three significant digits, so that no error is rounded to 0."""
    return f"{100 * share:.3g} %"


def share_in_words(share: float | None) -> str:
    """Return a share as a percentage, or words for an unknown one."""
    return "an unknown share" if share is None else percent(share)


def mistakes_in_words(result: LengthResult) -> str:
    """Describe the wrong sequences of a range."""
    mistakes = result["mistakes"]
    kinds = {
        "the right symbols in another order": mistakes["order"],
        "other symbols": mistakes["symbols"],
        "an end too early or too late": mistakes["end"],
    }
    counts = "; ".join(f"{kind}: {count:,}" for kind, count in kinds.items() if count)
    shortest = mistakes["examples"][0]
    return (
        f"At lengths {span(result)}, {result['wrong_sequences']:,} of {result['episodes']:,} sequences are wrong "
        f"({counts}). The shortest of them, of length {shortest['length']}, first goes wrong at "
        f"timestep {shortest['timestep']}, with {shortest['got']} instead of "
        f"{shortest['expected']}; {shortest['wrong_symbols']} of its {shortest['symbols']} outputs are wrong."
    )
