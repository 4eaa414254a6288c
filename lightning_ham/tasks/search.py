"""Search: the value of a key among sorted pairs."""

from bisect import bisect_left
from operator import itemgetter
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_ham.tasks.checks import expect_integer, expect_list, expect_two, mismatch
from lightning_ham.tasks.csv_form import CsvForm, integer, reader
from lightning_ham.tasks.episode import Episodes, to_bits
from lightning_ham.tasks.sequences import (
    KEY_BITS,
    NUM_KEYS,
    NUM_VALUES,
    PAIR_BITS,
    VALUE_BITS,
    Pair,
    bits_to_pairs,
    draw_below,
    draw_keys,
    expect_pair,
    pairs_to_bits,
    to_integers,
)
from lightning_ham.tasks.task import CellLabel, Task

SearchInstance = tuple[list[Pair], int]


class Search(Task[SearchInstance, int]):
    """Find the value of the first pair that has the query as its key (the paper's Search).

    An instance is a list of (key, value) pairs, both from 0 to 31, sorted by key, and a query that is one of
    the keys. A cell is the key's 5 bits and the value's 5 bits, most significant first; the query takes the
    last cell, with a value of zero. There are two timesteps whatever the length, and only the second is
    scored, so that the pair must be found in a single descent::

        cells    (2, 7)  (9, 4)  (9, 1)  (30, 7)  (9, -)
        outputs  -  4

    Keys are uniform, and the query is the key of a uniformly chosen pair; the paper leaves both open. In a
    hard case all keys are from 2 to 8 adjacent ones, so that there are more ties among them.

    The last output bits are hints for training: in both timesteps, the key that is asked for.
    """

    name = "search"
    unit = "pairs"
    input_size = PAIR_BITS
    output_size = VALUE_BITS + KEY_BITS
    min_length = 2
    silent_timesteps = 1
    num_hints = KEY_BITS
    hint_kinds = ("echo",)
    num_guided = 1
    predicts_end = False
    has_hard_cases = True
    cell_labels = "key above, value below; query"
    example = "[[[2, 7], [9, 4]], 9]"

    paper_errors: ClassVar = {
        "1-32": {"lstm": "62", "lstm_attention": "0.04", "ham": "0.12"},
        "33-128": {"ham": "1.68"},
    }
    bar: ClassVar = {"1-32": 0.0005, "33-128": 0.003}

    def check(self, instance: object) -> None:
        pairs, query = expect_two(instance, "a list of (key, value) pairs and a query")
        keys: list[int] = []
        for index, pair in enumerate(expect_list(pairs, "pairs"), 1):
            key = expect_pair(pair, f"pair {index}")
            if keys and key < keys[-1]:
                raise mismatch("pairs sorted by key", f"key {key} after {keys[-1]}", f"pair {index}")
            keys.append(key)
        if expect_integer(query, "keys", "query", limit=NUM_KEYS) not in keys:
            raise mismatch("a query that is one of the keys", query)

    def oracle(self, instance: SearchInstance) -> int:
        pairs, query = instance
        return pairs[bisect_left(pairs, query, key=itemgetter(0))][1]

    def size(self, length: int) -> int:
        return max(length - 1, 0)

    def num_symbols(self, length: int) -> int:
        return 1

    def csv_form(self) -> CsvForm:
        return CsvForm(
            columns=("key", "value"),
            row="two integers key,value",
            read_row=reader(integer, integer),
            to_instance=lambda rows, query: (rows, query),
            per="query",
            files=("pair {}",),
            contents="sorted, with --query",
            answers="the value, a line for each query",
        )

    def instance_to_cells(self, instance: SearchInstance) -> Tensor:
        pairs, query = instance
        return pairs_to_bits([*pairs, (query, 0)])

    def cells_to_instance(self, cells: Tensor) -> SearchInstance:
        *pairs, (query, _) = bits_to_pairs(cells)
        return pairs, query

    def answer_to_symbols(self, answer: int, length: int) -> Tensor:
        return to_bits(torch.tensor([answer]), VALUE_BITS)

    def symbols_to_answer(self, symbols: Tensor) -> int:
        (answer,) = to_integers(symbols)
        return answer

    def hints(self, cells: Tensor, lengths: Tensor) -> Tensor:
        query = cells[torch.arange(len(cells)), lengths - 1, :KEY_BITS]
        return query.unsqueeze(1).expand(-1, 2, -1)

    def guide(self, episodes: Episodes) -> Tensor:
        keys, last = episodes.inputs[..., :KEY_BITS], episodes.first_cells + episodes.lengths - 1
        query = keys[torch.arange(len(last), device=last.device), last].unsqueeze(1)
        found = ((keys == query).all(dim=-1) & episodes.occupied).int().argmax(dim=1)  # the first of them
        return torch.stack([last, found], dim=1).unsqueeze(-1)

    def label_cells(self, instance: SearchInstance) -> list[CellLabel]:
        pairs, query = instance
        return [*(CellLabel(pair, "pairs") for pair in pairs), CellLabel(query, "query")]

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        num_pairs = lengths - 1
        keys = draw_keys(num_pairs, hard, generator).sort(1).values
        values = torch.randint(NUM_VALUES, keys.shape, generator=generator)
        query = keys.gather(1, draw_below(num_pairs, generator).unsqueeze(1))  # [batch, 1]
        answers = values.gather(1, torch.searchsorted(keys, query))
        cells = pad(keys * NUM_VALUES + values, (0, 1)).scatter(1, num_pairs.unsqueeze(1), query * NUM_VALUES)
        return to_bits(cells, PAIR_BITS), to_bits(answers, VALUE_BITS)
