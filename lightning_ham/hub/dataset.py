"""The episodes of evaluations as a dataset: instances with the oracle's answers, as JSON lines with a card."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from typing import Any

from huggingface_hub import DatasetCardData
from jinja2 import Environment, StrictUndefined

from lightning_ham.evaluation import check_lengths, episodes_per_range
from lightning_ham.evaluation.protocol import draw_episodes
from lightning_ham.hub.files import CARD
from lightning_ham.hub.places import ORGANISATION
from lightning_ham.tasks import Lengths, Task, built_in_tasks, capacity_for, get_task
from lightning_ham.tasks.lengths import row_name

SPLIT = "test"
"""The only split: training draws fresh episodes."""

_CARD = """\
# Episodes of the task {{ task.name }}

{{ summary }}

These are the episodes on which lightning_ham evaluates models of this task with seed {{ seed }}, each with the right
answer of an oracle in plain Python. Models are trained on other episodes, drawn afresh.

| configuration | episodes | leaves of the memory |
| --- | ---: | ---: |
{% for config in configs %}
| `{{ config.name }}` | {{ "{:,}".format(config.episodes) }} | {{ "{:,}".format(config.capacity) }} |
{% endfor %}

A configuration is a range of lengths, in memory cells. A row has the `length`, and `instance` and `answer` as JSON, as
their form depends on the task:

```python
import json
from datasets import load_dataset

row = load_dataset("{{ repo_id }}", "{{ configs[0].name }}", split="{{ split }}")[0]
instance, answer = json.loads(row["instance"]), json.loads(row["answer"])
```

A model of lightning_ham takes instances as they are: `model.solve([instance])`. To measure one on the same episodes:

    python -m lightning_ham.evaluate MODEL {{ options }}

```text
{{ documentation }}
```
"""


def dataset_id(task: str) -> str:
    """Return the name on the Hub of the dataset of a task; the task's own name for a task of another package.

    >>> dataset_id("priority_queue"), dataset_id("of_mine")
    ('lightning-ham/priority-queue-episodes', 'of_mine')
    """
    is_ours = any(known.name == task for known in built_in_tasks())
    return f"{ORGANISATION}/{task.replace('_', '-')}-episodes" if is_ours else task


def dataset_files(
    task_name: str, repo_id: str, lengths: Sequence[tuple[int, int] | str], episodes: int | Sequence[int], seed: int
) -> dict[str, bytes]:
    """Return the contents of the files of a dataset, by their names: the card, and one for each configuration.

    Its episodes are those on which :func:`lightning_ham.evaluation.evaluate` measures.

    Args:
        task_name: Name of the task.
        repo_id: Name of the dataset, for its card.
        lengths: Ranges of lengths.
        episodes: Number of episodes per range: one for all, or one for each.
        seed: Seed of the episodes.

    Raises:
        ValueError: If there is no such task, or it has no instance in a range.
    """
    task = get_task(task_name)
    ranges = check_lengths(task, lengths)
    counts = episodes_per_range(lengths, episodes)
    files, configs = {}, []
    for variant in (None, *task.variants):
        for span, count in zip(ranges, counts, strict=True):
            path = f"data/{span}{f'-{variant}' if variant else ''}.jsonl"
            files[path] = "".join(_rows(task, span, variant, count, seed)).encode()
            configs.append(
                {"name": row_name(span, variant), "path": path, "episodes": count, "capacity": capacity_for(span.high)}
            )
    options = f"--lengths {' '.join(map(str, ranges))} --episodes {' '.join(map(str, counts))} --seed {seed}"
    return {CARD: _card(task, repo_id, configs, seed, options).encode(), **files}


def _rows(task: Task[Any, Any], span: Lengths, variant: str | None, episodes: int, seed: int) -> Iterator[str]:
    """Yield a line of JSON for each episode."""
    for drawn in draw_episodes(task, span, variant, episodes, seed):
        for cells, occupied in zip(drawn.inputs, drawn.occupied, strict=True):
            instance = task.decode_inputs(cells, occupied)
            row = {
                "length": task.instance_length(instance),
                "instance": json.dumps(instance),
                "answer": json.dumps(task.oracle(instance)),
            }
            yield f"{json.dumps(row)}\n"


def _card(task: Task[Any, Any], repo_id: str, configs: list[dict[str, Any]], seed: int, options: str) -> str:
    """Return the text of the dataset's card: YAML that the Hub reads, then Markdown."""
    documentation = inspect.cleandoc(type(task).__doc__ or f"The task {task.name}.")
    total = sum(config["episodes"] for config in configs)
    metadata = DatasetCardData(
        license="apache-2.0",
        pretty_name=f"Episodes of the task {task.name}",
        task_categories=["other"],
        size_categories=_size_category(total),
        tags=["lightning-ham", "algorithm-learning", "arxiv:1602.03218", task.name, f"task:{task.name}"],
        configs=[
            {"config_name": config["name"], "data_files": [{"split": SPLIT, "path": config["path"]}]}
            for config in configs
        ],
    )
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    body = environment.from_string(_CARD).render(
        task=task,
        repo_id=repo_id,
        configs=configs,
        seed=seed,
        options=options,
        split=SPLIT,
        summary=documentation.partition("\n")[0],
        documentation=documentation,
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"


def _size_category(rows: int) -> str:
    """Return the Hub's word for a number of rows.

    >>> _size_category(999), _size_category(1000), _size_category(20300)
    ('n<1K', '1K<n<10K', '10K<n<100K')
    """
    ends = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((word for end, word in ends.items() if rows < end), "1M<n<10M")
