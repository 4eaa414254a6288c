"""Write the README's table of results from the cards of the bundled models: ``python docs/results_table.py``.

A card is made from the evaluation that was run on its model, so no number here is typed by hand but the paper's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard

from lightning_ham.training.evaluation import wilson_interval

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
WEIGHTS = ROOT / "lightning_ham" / "hub" / "weights"
BEGIN, END = "<!-- results:begin -->\n", "<!-- results:end -->"

# Wrong sequences of the paper's LSTM+HAM in percent, by task and lengths (arXiv 1602.03218v2).
PAPER = {
    "reverse": {"1-32": "0", "33-128": "0"},
    "search": {"1-32": "0.12", "33-128": "1.68"},
    "merge": {"1-32": "0", "33-128": "2.48"},
    "sort": {"1-32": "0.04", "33-128": "0.24"},
    "add": {"1-32": "0", "33-128": "100"},
}
HEADER = """\
| model | lengths | wrong sequences | share (95 % interval) | the paper's model | training |
| --- | --- | --- | --- | --- | --- |
"""


def render(weights: Path) -> str:
    """Return the table of all models in ``weights``, a row for each range of lengths that they were evaluated on."""
    return HEADER + "".join(row for card in sorted(weights.glob("*/README.md")) for row in rows(card))


def rows(path: Path) -> Iterator[str]:
    """Yield the rows of one model."""
    card = ModelCard.load(path)
    results = [result for result in card.data.eval_results or [] if result.metric_type == "sequence_error"]
    if not results:
        raise ValueError(f"Expected a card with results, but {path} has none; save the model with its evaluation.")
    training = dict(re.findall(r"^\| (\w+) \| (.*?) \|$", card.text.partition("## Training")[2], re.MULTILINE))
    for row, result in enumerate(results):
        episodes, lengths = result.dataset_args["episodes"], result.dataset_config
        wrong = round(result.metric_value * episodes)
        low, high = wilson_interval(wrong, episodes)
        paper = PAPER.get(result.task_name, {}).get(lengths)
        cells = [
            "" if row else f"`{path.parent.name}`",
            lengths,
            f"{wrong:,} of {episodes:,}",
            f"{100 * wrong / episodes:.3g} % ({100 * low:.3g} to {100 * high:.3g} %)",
            "" if paper is None else f"{paper} %",
            "" if row or not training else f"{training['time']}, seed {training['seed']}, {training['machine']}",
        ]
        yield f"| {' | '.join(cells)} |\n"


def replace(readme: str, table: str) -> str:
    """Return the text of the README with ``table`` between its two marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"Expected {BEGIN.strip()} and then {END} in the README, but one of them is missing.")
    return f"{before}{begin}{table}{end}{after}"


if __name__ == "__main__":
    README.write_text(replace(README.read_text(encoding="utf-8"), render(WEIGHTS)), encoding="utf-8")
