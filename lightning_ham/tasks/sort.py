"""Sort: sort pairs by key."""

from operator import itemgetter
from typing import ClassVar

import torch
from torch import Tensor

from lightning_ham.tasks.checks import expect_list
from lightning_ham.tasks.csv_form import CsvForm, integer, reader
from lightning_ham.tasks.episode import Episodes, from_bits, to_bits
from lightning_ham.tasks.sequences import (
    KEY_BITS,
    NUM_VALUES,
    PAIR_BITS,
    Pair,
    bits_to_pairs,
    draw_keys,
    expect_pair,
    guide_in_order,
    pairs_to_bits,
)
from lightning_ham.tasks.task import Task


class Sort(Task[list[Pair], list[Pair]]):
    """Output the pairs sorted by key, and pairs of equal keys in input order (the paper's Sort).

    An instance is a list of (key, value) pairs, both from 0 to 31. A cell is the key's 5 bits and the value's
    5 bits, most significant first::

        cells    (9, 4)  (2, 7)  (9, 1)  (0, 7)
        outputs  (0, 7)  (2, 7)  (9, 4)  (9, 1)  end

    Keys and values are uniform. In a hard case all keys are among 2 to 8 adjacent ones, so that the order
    depends on small differences and ties.
    """

    name = "sort"
    unit = "pairs"
    input_size = PAIR_BITS
    output_size = PAIR_BITS + 1
    num_guided = 1
    has_hard_cases = True
    cell_labels = "key above, value below"
    example = "[[9, 4], [2, 7]]"

    paper_errors: ClassVar = {
        "1-32": {"lstm": "99", "lstm_attention": "25", "ham": "0.04"},
        "33-128": {"lstm_attention": "100", "ham": "0.24"},
    }
    bar: ClassVar = {"1-32": 0.0, "33-128": 0.001}

    def check(self, instance: object) -> None:
        for index, pair in enumerate(expect_list(instance, "pairs"), 1):
            expect_pair(pair, f"pair {index}")

    def oracle(self, instance: list[Pair]) -> list[Pair]:
        return [(key, value) for key, value in sorted(instance, key=itemgetter(0))]

    def csv_form(self) -> CsvForm:
        return CsvForm(
            columns=("key", "value"),
            row="two integers key,value",
            read_row=reader(integer, integer),
            to_instance=list,
            files=("pair {}",),
            answers="the pairs, a line each",
        )

    def instance_to_cells(self, instance: list[Pair]) -> Tensor:
        return pairs_to_bits(instance)

    def cells_to_instance(self, cells: Tensor) -> list[Pair]:
        return bits_to_pairs(cells)

    def answer_to_symbols(self, answer: list[Pair], length: int) -> Tensor:
        return pairs_to_bits(answer)

    def symbols_to_answer(self, symbols: Tensor) -> list[Pair]:
        return bits_to_pairs(symbols)

    def guide(self, episodes: Episodes) -> Tensor:
        return guide_in_order(from_bits(episodes.inputs[..., :KEY_BITS]), episodes)

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        keys = draw_keys(lengths, hard, generator)
        pairs = keys * NUM_VALUES + torch.randint(NUM_VALUES, keys.shape, generator=generator)
        by_key = keys.argsort(dim=1, stable=True)
        return to_bits(pairs, PAIR_BITS), to_bits(pairs.gather(1, by_key), PAIR_BITS)
