"""Stack: the value pushed last comes out first."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_ham.tasks.structures import VALUE_BITS, Operations, Structure


class Stack(Structure):
    """Pop what was pushed last (the paper's Stack).

    Values are from 0 to 31::

        cells    push 7  push 30  pop  push 2  pop  pop
        outputs  -       -        30   -       2    7
    """

    name = "stack"
    input_size = 1 + VALUE_BITS
    early_pops = (0.1, 0.5)  # with the first alone, runs diverged in nearly full memories
    pops = "last"
    cell_labels = "value"
    example = '[["push", 7], ["push", 30], ["pop"]]'

    paper_errors: ClassVar = {"1-32": {"ham": "0"}, "33-128": {"ham": "0"}}
    bar: ClassVar = {"1-32": 0.0, "33-128": 0.0}

    def urgency(self, operands: Tensor) -> Tensor:
        return -torch.arange(operands.shape[1], device=operands.device).expand_as(operands)

    def oracle(self, instance: Operations) -> list[int]:
        inside: list[int] = []
        popped = []
        for operation in instance:
            if operation[0] == "pop":
                popped.append(inside.pop())
            else:
                inside.append(self._operand(operation))
        return popped

    def answers(self, is_pop: Tensor, operands: Tensor) -> Tensor:
        # A pop returns the value that was last pushed at its height.
        sizes = (1 - 2 * is_pop.long()).cumsum(1)
        heights = torch.where(is_pop, sizes, sizes - 1)  # of the value pushed or popped, [batch, longest]
        inside, popped = torch.zeros_like(operands), torch.zeros_like(operands)
        for t in range(operands.shape[1]):
            place = heights[:, t : t + 1].clamp(min=0)
            there = inside.gather(1, place)
            popped[:, t : t + 1] = there
            inside.scatter_(1, place, torch.where(is_pop[:, t : t + 1], there, operands[:, t : t + 1]))
        return popped
