"""The task: its values and bits, its oracle, its sampler."""

import torch

from lightning_ham.tasks import InstanceError, Task
from lightning_ham.tasks.episode import from_bits, to_bits

BITS = 8


class Needle(Task[list[tuple[int, int]], int]):
    """Find the one number whose flag is set, in a single access to the memory.

    An instance is a list of pairs: a number from 0 to 255, and its flag, 0 or 1. A cell is the number's 8 bits, most
    significant first, and the flag::

        cells    (3, 0)  (200, 0)  (17, 1)  (254, 0)
        outputs  17
    """

    name = "needle"
    input_size = BITS + 1
    output_size = BITS
    predicts_end = False  # there is one output, whatever the length
    example = "[[3, 0], [200, 0], [17, 1], [254, 0]]"
    cell_labels = "number above, flag below"

    def check(self, instance):
        pairs = instance if isinstance(instance, list) else []
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            pairs = []
        are_valid = all(
            type(number) is int and 0 <= number < 1 << BITS and type(flag) is int and flag in (0, 1)
            for number, flag in pairs
        )
        if not are_valid or sum(flag for _, flag in pairs) != 1:
            raise InstanceError(
                f"Expected pairs of a number from 0 to 255 and a flag, with one flag set, but got {instance!r}"
            )

    def oracle(self, instance):
        return next(number for number, flag in instance if flag)

    def num_symbols(self, length):
        return 1

    def instance_to_cells(self, instance):
        numbers, flags = zip(*instance, strict=True)
        return torch.cat((to_bits(torch.tensor(numbers), BITS), torch.tensor(flags).unsqueeze(1)), dim=1)

    def cells_to_instance(self, cells):
        numbers, flags = from_bits(cells[:, :BITS]).tolist(), cells[:, BITS].int().tolist()
        return list(zip(numbers, flags, strict=True))

    def answer_to_symbols(self, answer, length):
        return to_bits(torch.tensor([answer]), BITS)

    def symbols_to_answer(self, symbols):
        return int(from_bits(symbols))

    def draw(self, lengths, hard, generator):
        batch, longest = len(lengths), int(lengths.max())
        numbers = torch.randint(1 << BITS, (batch, longest), generator=generator)
        place = (torch.rand(batch, generator=generator) * lengths).long().unsqueeze(1)
        flags = torch.zeros(batch, longest, 1).scatter(1, place.unsqueeze(2), 1.0)
        return torch.cat((to_bits(numbers, BITS), flags), dim=2), to_bits(numbers.gather(1, place), BITS)
