"""The base of the data structures of the HAM paper's raw HAM (arXiv 1602.03218): pushes and pops."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_ham.tasks.checks import expect_integer, expect_list, mismatch
from lightning_ham.tasks.csv_form import CsvForm, integer
from lightning_ham.tasks.episode import Episodes, from_bits, to_bits
from lightning_ham.tasks.task import Task

Operation = tuple[str] | tuple[str, int] | tuple[str, int, int]
"""``("push", value)``, ``("push", priority, value)`` or ``("pop",)``."""
Operations = list[Operation]

VALUE_BITS = 5
NUM_VALUES = 1 << VALUE_BITS
PRIORITY_BITS = 5
NUM_PRIORITIES = 1 << PRIORITY_BITS


class Structure(Task[Operations, list[int]]):
    """Carry out operations on a data structure that is empty at first, one a timestep.

    An instance is a list of operations; its length is their number. A cell is a flag that is 1 for a pop, and
    the operands' bits, most significant first, zeros for a pop. Only the value put out at a
    pop is scored; there is no end flag, as there is an output for every operation.

    The last output bits are hints for training: whether the operation found a leaf that is taken, as a pop must and a
    push must not, and whether it left the leaf taken. Where leaves are taken once and for all (``spends_leaves``), two
    bits before them say as much of leaves that are spent: no operation must find one, and a pop leaves one.

    Operation t of m is a pop with probability t/m unless the structure is empty, as in the paper. In a hard case the
    structure is filled and then emptied: before a uniformly chosen operation, pops have one of the probabilities
    ``early_pops``, and from there on 0.9.
    """

    output_size = VALUE_BITS + 2
    unit = "operations"
    min_length = 2  # the shortest sampled: a single operation would be a push, without a score
    predicts_end = False
    num_hints = 2
    hint_kinds: ClassVar[tuple[str, ...]] = ("state",)
    num_guided = 1
    can_be_shifted = False
    has_hard_cases = True

    early_pops: ClassVar[tuple[float, ...]] = (0.1,)
    """Probabilities of a pop in the first part of hard cases, all equally likely."""
    operands: ClassVar[tuple[str, ...]] = ("value",)
    """The operands of a push, in order; a pop puts out the last one."""
    spends_leaves: ClassVar[bool] = False
    """Whether a leaf stays taken after a pop, as spent, in hints and guide."""
    pops: ClassVar[Literal["first", "last", "least"]]
    """Which element a pop takes: the one pushed first or last, or one with the least operands."""

    def operation_to_cell(self, operation: Operation) -> Tensor:
        """Return a valid operation as a cell, float32 of shape [input_size]."""
        return self.instance_to_cells([operation])[0]

    def check_operation(self, operation: object, place: str = "") -> bool:
        """Raise `InstanceError` unless this is an operation; return whether it is a pop.

        It does not check whether there is something to pop.
        """
        pushed = ", ".join(("'push'", *self.operands))
        wanted = f"('pop',) or ({pushed})"
        if not isinstance(operation, list | tuple):
            raise mismatch(wanted, type(operation).__name__, place)
        if list(operation) == ["pop"]:
            return True
        if not operation or operation[0] != "push" or len(operation) != 1 + len(self.operands):
            raise mismatch(wanted, operation, place)
        for name, operand in zip(self.operands, operation[1:], strict=True):
            plural = {"value": "values", "priority": "priorities"}[name]
            expect_integer(operand, plural, place, limit=NUM_VALUES if name == "value" else NUM_PRIORITIES)
        return False

    def check(self, instance: object) -> None:
        size = 0
        for index, operation in enumerate(expect_list(instance, "operations"), 1):
            place = f"operation {index}"
            size += -1 if self.check_operation(operation, place) else 1
            if size < 0:
                raise mismatch("something to pop", f"an empty {self.name.replace('_', ' ')}", place)

    def outside_samples(self, instance: Operations) -> str | None:
        sizes = accumulate(-1 if operation[0] == "pop" else 1 for operation in instance)
        most = max(sizes)
        if len(instance) <= 64 or most <= 0.95 * len(instance):  # in the fullest samples, 9 of 10 operations are pushes
            return None
        return f"it holds {most:,} elements at a time in {len(instance):,} operations, and hardly a sample as many"

    def csv_form(self) -> CsvForm:
        return CsvForm(
            columns=("operation", *self.operands),
            row=f"push,{','.join(self.operands)} or pop",
            read_row=self._read_operation,
            to_instance=list,
            files=("operation {}",),
            contents="an operation a line",
            answers="the values popped, a line each",
        )

    def _read_operation(self, fields: Sequence[str]) -> tuple[str | int, ...]:
        """Return the operation in the fields of a line."""
        name, *operands = fields
        if name == "pop" and not any(operands):
            return ("pop",)
        if name == "push" and len(operands) == len(self.operands):
            return ("push", *map(integer, operands))
        raise ValueError(name)

    def instance_to_cells(self, instance: Operations) -> Tensor:
        rows = [(1, 0) if operation[0] == "pop" else (0, self._operand(operation)) for operation in instance]
        is_pop, operands = torch.tensor(rows).unbind(1)
        return _cells(is_pop, operands, self.input_size - 1)

    def cells_to_instance(self, cells: Tensor) -> Operations:
        operations: Operations = []
        for is_pop, operand in zip(cells[:, 0].tolist(), from_bits(cells[:, 1:]).tolist(), strict=True):
            pushed = (operand,) if len(self.operands) == 1 else divmod(operand, NUM_VALUES)
            operations.append(("pop",) if is_pop else ("push", *pushed))
        return operations

    def symbols_that_count(self, cells: Tensor, num_symbols: int) -> Tensor:
        return cells[..., :num_symbols, 0] == 1

    def hints(self, cells: Tensor, lengths: Tensor) -> Tensor:
        is_pop = cells[..., 0] == 1
        if not self.spends_leaves:
            return torch.stack([is_pop, ~is_pop], dim=-1).float()
        return torch.stack([torch.zeros_like(is_pop), is_pop, is_pop, torch.ones_like(is_pop)], dim=-1).float()

    def guide(self, episodes: Episodes) -> Tensor:
        # A push goes to the first free leaf, or the first never taken; a pop to the element that it takes.
        is_pop, operands = episodes.inputs[..., 0] == 1, from_bits(episodes.inputs[..., 1:])
        urgency = self.urgency(operands)
        nothing = torch.iinfo(urgency.dtype).max
        inside = torch.full_like(urgency, nothing)
        taken = torch.zeros_like(is_pop)
        leaves = []
        for t in range(episodes.targets.shape[1]):
            pops = is_pop[:, t]
            leaf = torch.where(pops, inside.argmin(1), taken.int().argmin(1)).unsqueeze(1)
            pops = pops.unsqueeze(1)
            inside.scatter_(1, leaf, urgency[:, t : t + 1].masked_fill(pops, nothing))
            taken.scatter_(1, leaf, ~pops | self.spends_leaves)
            leaves.append(leaf)
        return torch.stack(leaves, dim=1)

    @abstractmethod
    def urgency(self, operands: Tensor) -> Tensor:
        """Return the sort key of each pushed element, int64 of shape [batch, timesteps]; a pop takes the smallest.

        Args:
            operands: The operands of pushes, as one integer each, int64 of shape [batch, timesteps].
        """

    def decode(self, outputs: Tensor, inputs: Tensor | None = None) -> list[int]:
        if inputs is None:
            raise ValueError(
                "Expected the episode's inputs beside its outputs, which do not tell the pops, but got none"
            )
        return super().decode(outputs, inputs)

    def answer_to_symbols(self, answer: list[int], length: int) -> Tensor:
        return to_bits(torch.tensor(answer, dtype=torch.long), VALUE_BITS)

    def symbols_to_answer(self, symbols: Tensor) -> list[int]:
        values: list[int] = from_bits(symbols).tolist()
        return values

    def draw(self, lengths: Tensor, hard: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        is_pop = _draw_pops(lengths, hard, self.early_pops, generator)
        operands = self.draw_operands(hard, is_pop.shape[1], generator).masked_fill(is_pop, 0)
        popped = self.answers(is_pop, operands) % NUM_VALUES
        return _cells(is_pop, operands, self.input_size - 1), to_bits(popped, VALUE_BITS)

    def draw_operands(self, hard: Tensor, longest: int, generator: torch.Generator | None) -> Tensor:
        """Draw operands of a push for every timestep, int64 of shape [batch, longest].

        Priority and value are one integer, whose low bits are the value.
        """
        return torch.randint(NUM_VALUES, (len(hard), longest), generator=generator)

    @abstractmethod
    def answers(self, is_pop: Tensor, operands: Tensor) -> Tensor:
        """Return the popped operands at every pop, int64 of shape [batch, longest]; elsewhere anything.

        Args:
            is_pop: Which operations are pops, none of them on empty, bool of shape [batch, longest].
            operands: The operands of the other operations, int64 of shape [batch, longest].
        """

    def _operand(self, operation: Operation) -> int:
        """Return the operands of a push as one integer."""
        number = 0
        for operand in operation[1:]:
            number = number * NUM_VALUES + int(operand)
        return number


def _draw_pops(
    lengths: Tensor, hard: Tensor, early_pops: tuple[float, ...], generator: torch.Generator | None
) -> Tensor:
    """Draw which operations are pops, bool of shape [batch, longest], none of them on an empty structure."""
    batch, longest = len(lengths), int(lengths.max())
    number = torch.arange(1, longest + 1)
    turn = (torch.rand(batch, generator=generator) * lengths).ceil().unsqueeze(1)
    chances = (number / lengths.unsqueeze(1)).expand(batch, longest)
    if hard.any():  # else no random numbers are drawn, so that samples do not depend on hard cases
        early = torch.tensor(early_pops)[torch.randint(len(early_pops), (batch, 1), generator=generator)]
        chances = torch.where(hard.unsqueeze(1), torch.where(number < turn, early, 0.9), chances)
    is_pop = torch.rand(batch, longest, generator=generator) < chances
    sizes = torch.zeros(batch, dtype=torch.long)
    for t in range(longest):
        is_pop[:, t] &= sizes > 0
        sizes += 1 - 2 * is_pop[:, t].long()
    return is_pop


def _cells(is_pop: Tensor, operands: Tensor, num_bits: int) -> Tensor:
    """Return cells [..., 1 + num_bits] from flags and operands, both of shape [...]."""
    return torch.cat([is_pop.unsqueeze(-1).float(), to_bits(operands, num_bits)], dim=-1)
