"""PriorityQueue: the pair of the lowest priority comes out first."""

import heapq
from typing import ClassVar

import torch
from torch import Tensor

from lightning_ham.tasks.episode import from_bits, to_bits
from lightning_ham.tasks.structures import NUM_PRIORITIES, NUM_VALUES, PRIORITY_BITS, VALUE_BITS, Operations, Structure


class PriorityQueue(Structure):
    """Pop the value of the least (priority, value) pair (the paper's PriorityQueue).

    Priorities and values are from 0 to 31; of equal priorities the smaller value comes first. The priority's
    bits come before the value's::

        cells    push (9, 4)  push (2, 7)  pop  push (30, 1)  pop  pop
        outputs  -            -            7    -             4    1

    Sampled priorities are all distinct in every stretch of 32 operations; there are no more of them. In a
    hard case the pairs are from a window of 8 to 256 adjacent ones of all 1,024 (few and many of them are as likely on
    a logarithmic scale), so that the order hangs on small differences of the priority, or on the value.
    """

    name = "priority_queue"
    input_size = 1 + PRIORITY_BITS + VALUE_BITS
    output_size = VALUE_BITS + PRIORITY_BITS + 2
    num_hints = PRIORITY_BITS + 2
    hint_kinds = ("echo", "state")
    operands = ("priority", "value")
    pops = "least"
    cell_labels = "priority above, value below"
    example = '[["push", 9, 4], ["pop"]]'

    paper_errors: ClassVar = {"1-32": {"ham": "0.08"}, "33-128": {"ham": "0.2"}}
    bar: ClassVar = {"1-32": 0.0002, "33-128": 0.001}

    def urgency(self, operands: Tensor) -> Tensor:
        return operands

    def oracle(self, instance: Operations) -> list[int]:
        inside: list[int] = []
        popped = []
        for operation in instance:
            if operation[0] == "pop":
                popped.append(heapq.heappop(inside) % NUM_VALUES)
            else:
                heapq.heappush(inside, self._operand(operation))
        return popped

    def draw_operands(self, hard: Tensor, longest: int, generator: torch.Generator | None) -> Tensor:
        batch, stretches = len(hard), -(-longest // NUM_PRIORITIES)
        shuffled = torch.rand(batch, stretches, NUM_PRIORITIES, generator=generator).argsort(2)
        distinct = shuffled.flatten(1)[:, :longest]
        widths = (8 * 32 ** torch.rand(batch, 1, generator=generator)).long()
        starts = (torch.rand(batch, 1, generator=generator) * (NUM_PRIORITIES * NUM_VALUES - widths + 1)).long()
        adjacent = starts + (torch.rand(batch, longest, generator=generator) * widths).long()
        values = super().draw_operands(hard, longest, generator)
        return torch.where(hard.unsqueeze(1), adjacent, distinct * NUM_VALUES + values)

    def hints(self, cells: Tensor, lengths: Tensor) -> Tensor:
        is_pop = cells[..., 0] == 1
        popped = self.answers(is_pop, from_bits(cells[..., 1:])).masked_fill(~is_pop, 0)
        return torch.cat([to_bits(popped // NUM_VALUES, PRIORITY_BITS), super().hints(cells, lengths)], dim=-1)

    def answers(self, is_pop: Tensor, operands: Tensor) -> Tensor:
        nothing = NUM_PRIORITIES * NUM_VALUES  # larger than every pair
        inside = torch.full_like(operands, nothing)
        popped = torch.zeros_like(operands)
        for t in range(operands.shape[1]):
            least, place = inside.min(1, keepdim=True)
            popped[:, t : t + 1] = least
            pops = is_pop[:, t : t + 1]
            inside.scatter_(1, torch.where(pops, place, t), torch.where(pops, nothing, operands[:, t : t + 1]))
        return popped
