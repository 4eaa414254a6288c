"""Reverse: reverse a list of numbers."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_ham.tasks.checks import expect_integer, expect_list
from lightning_ham.tasks.csv_form import CsvForm, integer, reader
from lightning_ham.tasks.episode import Episodes, to_bits
from lightning_ham.tasks.sequences import NUM_PAIRS, PAIR_BITS, guide_in_order, to_integers
from lightning_ham.tasks.task import Task


class Reverse(Task[list[int], list[int]]):
    """Output the integers in reverse order (the paper's Reverse).

    An instance is a list of integers from 0 to 1023, each a cell of 10 bits, most significant first::

        cells    7  1000  42
        outputs  42  1000  7  end
    """

    name = "reverse"
    unit = "numbers"
    input_size = PAIR_BITS
    output_size = PAIR_BITS + 1
    num_guided = 1
    example = "[7, 1000, 42]"

    paper_errors: ClassVar = {
        "1-32": {"lstm": "73", "lstm_attention": "0", "ham": "0"},
        "33-128": {"ham": "0"},
    }
    bar: ClassVar = {"1-32": 0.0, "33-128": 0.0}

    def check(self, instance: object) -> None:
        for index, number in enumerate(expect_list(instance, "integers"), 1):
            expect_integer(number, "numbers", f"number {index}", limit=NUM_PAIRS)

    def oracle(self, instance: list[int]) -> list[int]:
        return list(reversed(instance))

    def csv_form(self) -> CsvForm:
        return CsvForm(
            columns=("value",),
            row="one integer",
            read_row=reader(integer),
            to_instance=lambda rows: [number for (number,) in rows],
            files=("number {}",),
            answers="the values, a line each",
        )

    def instance_to_cells(self, instance: list[int]) -> Tensor:
        return to_bits(torch.tensor(instance), PAIR_BITS)

    def cells_to_instance(self, cells: Tensor) -> list[int]:
        return to_integers(cells)

    def answer_to_symbols(self, answer: list[int], length: int) -> Tensor:
        return to_bits(torch.tensor(answer), PAIR_BITS)

    def symbols_to_answer(self, symbols: Tensor) -> list[int]:
        return to_integers(symbols)

    def guide(self, episodes: Episodes) -> Tensor:
        last_first = -torch.arange(episodes.inputs.shape[1], device=episodes.inputs.device).expand_as(episodes.occupied)
        return guide_in_order(last_first, episodes)

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        integers = torch.randint(NUM_PAIRS, (len(lengths), int(lengths.max())), generator=generator)
        last_first = lengths.unsqueeze(1) - 1 - torch.arange(integers.shape[1])
        answers = integers.gather(1, last_first.clamp(min=0))
        return to_bits(integers, PAIR_BITS), to_bits(answers, PAIR_BITS)
