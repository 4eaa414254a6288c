"""Add: two numbers in binary, digit by digit."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_ham.tasks.checks import expect_integer, expect_two
from lightning_ham.tasks.csv_form import CsvForm, integer, reader
from lightning_ham.tasks.episode import Episodes
from lightning_ham.tasks.sequences import draw_below
from lightning_ham.tasks.task import CellLabel, Task


class Add(Task[tuple[int, int], int]):
    """Add two numbers, given and answered in binary, least significant bit first (the paper's Add).

    An instance is two non-negative integers. Both are written with the m bits that the larger one needs, the sum
    with m + 1. A cell is a bit, a flag for '+' and a flag for '='; this is 6 + 3 = 9::

        cells    0  1  1  +  1  1  0  =
        outputs  1  0  0  1  end

    So the length is 2m + 2 cells: lengths of 1-32 are numbers of up to 15 bits, of 33-128 up to 63, of 129-1024 up
    to 511. Numbers of any size are taken; how often a model is right depends on it.

    Sampled numbers are m uniform bits each, so both may have leading zeros. Half of the hard cases have
    a stretch of m/2 to m digits in which the two numbers have one digit in common, the first, and are each
    other's complement in the rest: that first digit is the carry into all of them. In the other half, only
    a share of the ones in either number is left, uniform from none to all: of uniform bits, one says nothing of
    the sum unless the other is known as well, but where ones are rare it does.

    The two output bits behind the sum's digit are hints for training: the digits that are to be added.
    """

    name = "add"
    unit = "bits"
    input_size = 3
    output_size = 4
    min_length = 4
    length_step = 2
    num_hints = 2
    hint_kinds = ("echo",)
    num_guided = 2
    has_hard_cases = True
    cell_labels = "digit or sign"
    example = "[6, 3]"

    paper_errors: ClassVar = {
        "1-32": {"lstm": "39", "lstm_attention": "0", "ham": "0"},
        "33-128": {"lstm_attention": "100", "ham": "100"},
    }
    bar: ClassVar = {"1-32": 0.0, "33-128": 0.005}

    def check(self, instance: object) -> None:
        for ordinal, number in zip(("first", "second"), expect_two(instance, "two integers"), strict=True):
            expect_integer(number, "numbers", f"{ordinal} number")

    def oracle(self, instance: tuple[int, int]) -> int:
        first, second = instance
        return first + second

    def size(self, length: int) -> int:
        return max(length // 2 - 1, 0)

    def num_symbols(self, length: int) -> int:
        return length // 2

    def csv_form(self) -> CsvForm:
        return CsvForm(
            columns=("a", "b"),
            row="two integers a,b",
            read_row=reader(integer, integer),
            to_instance=tuple,
            per="row",
            contents="an instance a line",
            answers="the sum, a line each",
        )

    def instance_to_cells(self, instance: tuple[int, int]) -> Tensor:
        first, second = instance
        num_digits = max(first.bit_length(), second.bit_length(), 1)
        cells = torch.zeros(2 * num_digits + 2, self.input_size)
        cells[:num_digits, 0] = _digits(first, num_digits)
        cells[num_digits, 1] = 1
        cells[num_digits + 1 : -1, 0] = _digits(second, num_digits)
        cells[-1, 2] = 1
        return cells

    def cells_to_instance(self, cells: Tensor) -> tuple[int, int]:
        num_digits = len(cells) // 2 - 1
        return _number(cells[:num_digits, 0]), _number(cells[num_digits + 1 : -1, 0])

    def answer_to_symbols(self, answer: int, length: int) -> Tensor:
        return _digits(answer, self.num_symbols(length)).unsqueeze(-1)

    def symbols_to_answer(self, symbols: Tensor) -> int:
        return _number(symbols[:, 0])

    def hints(self, cells: Tensor, lengths: Tensor) -> Tensor:
        digits = cells[..., 0]
        place = torch.arange(digits.shape[1] // 2)
        second = (lengths // 2).unsqueeze(1) + place  # as long as the first, and '+' and '=' are zeros
        return torch.stack([digits[:, : len(place)], digits.gather(1, second)], dim=-1)

    def guide(self, episodes: Episodes) -> Tensor:
        # One digit of each number, then '+' and '='.
        half = (episodes.lengths // 2).unsqueeze(1)  # cells of a number and the sign behind it
        places = torch.minimum(torch.arange(episodes.targets.shape[1], device=half.device), half - 1)
        first = episodes.first_cells.unsqueeze(1) + places
        return torch.stack([first, first + half], dim=-1)

    def label_cells(self, instance: tuple[int, int]) -> list[CellLabel]:
        digits = self.instance_to_cells(instance)[:, 0].int().tolist()
        half = len(digits) // 2
        signs = {half - 1: "+", len(digits) - 1: "="}
        return [CellLabel(signs.get(place, digit)) for place, digit in enumerate(digits)]

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        num_digits = lengths // 2 - 1
        longest = int(num_digits.max())
        place = torch.arange(longest)
        first, second = torch.randint(2, (2, len(lengths), longest), generator=generator)

        sparse = hard & (torch.rand(lengths.shape, generator=generator) < 0.5)
        kept = torch.rand(2, len(lengths), 1, generator=generator).masked_fill(~sparse.unsqueeze(1), 1.0)
        first, second = torch.stack([first, second]) * (torch.rand(2, *first.shape, generator=generator) < kept)

        chain = num_digits - draw_below(num_digits // 2 + 1, generator)
        start = draw_below(num_digits - chain + 1, generator)
        start, stop = start.unsqueeze(1), (start + chain).unsqueeze(1)
        in_chain = (place >= start) & (place < stop) & (hard & ~sparse).unsqueeze(1)
        second = torch.where(in_chain, first ^ (place > start), second)

        num_digits = num_digits.unsqueeze(1)
        numbers = (place < num_digits).unsqueeze(1) * torch.stack([first, second], dim=1)
        first, second = numbers.unbind(1)

        # Equal digits settle the carry out of their place: it is the digit itself. Unequal ones pass it on.
        settled_by = torch.where(first == second, place + 1, 0).cummax(1).values
        carries = pad(first, (1, 0)).gather(1, settled_by)
        total = pad(first ^ second, (0, 1)) ^ pad(carries, (1, 0))  # [batch, longest + 1]

        # A zero digit follows each number, in the place of '+' or '='.
        digits = pad(numbers, (0, 1)).flatten(1)  # [batch, 2 * longest + 2]
        position = torch.arange(digits.shape[1])
        source = torch.where(position <= num_digits, position, position + longest - num_digits)
        digits = digits.gather(1, source.clamp(max=digits.shape[1] - 1))
        cells = torch.stack([digits, position == num_digits, position == 2 * num_digits + 1], dim=-1)
        return cells.float(), total.unsqueeze(-1).float()


def _digits(number: int, num_digits: int) -> Tensor:
    """Return the binary digits of a number of any size, least significant first, float32 of shape [num_digits]."""
    return torch.tensor([float(number >> place & 1) for place in range(num_digits)])


def _number(digits: Tensor) -> int:
    """Return the number with these digits: the inverse of `_digits`."""
    return sum(int(digit) << place for place, digit in enumerate(digits.tolist()))
