"""Queue: the value pushed first comes out first."""

from collections import deque
from typing import ClassVar

import torch
from torch import Tensor

from lightning_ham.tasks.structures import VALUE_BITS, Operations, Structure


class Queue(Structure):
    """Pop what was pushed first (the paper's Queue).

    Values are from 0 to 31::

        cells    push 7  push 30  pop  push 2  pop  pop
        outputs  -       -        7    -       30   2
    """

    name = "queue"
    input_size = 1 + VALUE_BITS
    early_pops = (0.1, 0.5)  # with 0.1 alone, memories are nearly full, and trainings failed
    output_size = VALUE_BITS + 4
    num_hints = 4
    controller_defaults: ClassVar = {"state_bits": 2}  # a bit for taken leaves, and one for spent ones
    pops = "first"
    spends_leaves = True  # in a leaf used again, an element would come before older ones
    cell_labels = "value"
    example = '[["push", 7], ["push", 30], ["pop"]]'

    paper_errors: ClassVar = {"1-32": {"ham": "0"}, "33-128": {"ham": "0"}}
    bar: ClassVar = {"1-32": 0.0, "33-128": 0.0}

    def urgency(self, operands: Tensor) -> Tensor:
        return torch.arange(operands.shape[1], device=operands.device).expand_as(operands)

    def oracle(self, instance: Operations) -> list[int]:
        inside: deque[int] = deque()
        popped = []
        for operation in instance:
            if operation[0] == "pop":
                popped.append(inside.popleft())
            else:
                inside.append(self._operand(operation))
        return popped

    def answers(self, is_pop: Tensor, operands: Tensor) -> Tensor:
        pushes_first = is_pop.long().argsort(dim=1, stable=True)
        number = is_pop.long().cumsum(1) - 1
        return operands.gather(1, pushes_first).gather(1, number.clamp(min=0))
