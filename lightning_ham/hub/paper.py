"""What the paper reports (arXiv 1602.03218v2), beside which our figures are shown. The only place that has them."""

from __future__ import annotations

ERRORS: dict[str, dict[str, dict[str, str]]] = {
    "reverse": {
        "1-32": {"lstm": "73", "lstm_attention": "0", "ham": "0"},
        "33-128": {"ham": "0"},
    },
    "search": {
        "1-32": {"lstm": "62", "lstm_attention": "0.04", "ham": "0.12"},
        "33-128": {"ham": "1.68"},
    },
    "merge": {
        "1-32 (grid)": {"lstm": "88", "lstm_attention": "16", "ham": "0"},
        "33-128 (grid)": {"lstm_attention": "100", "ham": "2.48"},
    },
    "sort": {
        "1-32": {"lstm": "99", "lstm_attention": "25", "ham": "0.04"},
        "33-128": {"lstm_attention": "100", "ham": "0.24"},
    },
    "add": {
        "1-32": {"lstm": "39", "lstm_attention": "0", "ham": "0"},
        "33-128": {"lstm_attention": "100", "ham": "100"},
    },
    "stack": {"1-32": {"ham": "0"}, "33-128": {"ham": "0"}},
    "queue": {"1-32": {"ham": "0"}, "33-128": {"ham": "0"}},
    "priority_queue": {"1-32": {"ham": "0.08"}, "33-128": {"ham": "0.2"}},
}
"""Wrong output sequences in percent, by task, lengths and model; what it gives in words only is left out."""


def paper_error(task: str, lengths: str, model: str) -> str | None:
    """Return the paper's error in percent, None where it has no such figure.

    Args:
        task: Name of the task.
        lengths: ``1-32`` or ``33-128``, and the task's variant that has the paper's instances: ``1-32 (grid)``.
        model: ``ham``, ``lstm`` or ``lstm_attention``.

    >>> paper_error("merge", "33-128 (grid)", "ham")
    '2.48'
    """
    return ERRORS.get(task, {}).get(lengths, {}).get(model)
