"""A data structure that a trained memory plays, one operation at a time."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch import Tensor

from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.memory import Access, Tree
from lightning_ham.tasks import InstanceError, capacity_for
from lightning_ham.tasks.plain import plain
from lightning_ham.tasks.structures import Operation, Structure


class OpenStructure:
    """A stack, a queue or a priority queue whose elements are in the memory alone.

    An operation is one access to the memory, O(log n). What comes out is the network's own answer, right or wrong.

    The network was trained on trees in which every push could have a leaf of its own, and nothing makes it use a leaf
    again. So the tree has at least twice as many leaves as there is room for elements, and once there have been as
    many pushes as leaves, the elements are moved to a fresh one: popped as the network pops them, and each leaf's
    vector put where the network pushes. That is O(n log n) after at least n / 2 pushes: O(log n) an operation still,
    on average, however many there are.

    Args:
        task: The data structure.
        controller: The trained network.
        capacity: Most elements at a time.

    Raises:
        TypeError: If the capacity is no whole number.
        ValueError: If it is below 1.
    """

    def __init__(self, task: Structure, controller: RawHAM, capacity: int) -> None:
        capacity = plain(capacity)
        if type(capacity) is not int:
            raise TypeError(f"Expected a capacity that is a whole number, but got {capacity!r}.")
        if capacity < 1:
            raise ValueError(f"Expected a capacity of at least 1, but got {capacity}.")
        self.capacity = capacity
        self._task = task
        self._controller = controller
        self._size = 0
        self._begin()

    def __len__(self) -> int:
        """Return the number of elements."""
        return self._size

    def push(self, *operands: SupportsIndex) -> None:
        """Put an element in: ``push(value)``, or ``push(priority, value)`` for a priority queue.

        Raises:
            OverflowError: If there are as many elements as the capacity.
            InstanceError: If the operands are not those of the structure.
        """
        names = self._task.operands
        if len(operands) != len(names):
            raise InstanceError(f"Expected push({', '.join(names)}), but got {len(operands)} arguments")
        operation: Operation = ("push", *plain(operands))
        self._task.check_operation(operation)
        if self._size == self.capacity:
            raise OverflowError(
                f"Expected fewer than {self.capacity} elements before a push, but the {self._name} is full; open one "
                "with a larger capacity."
            )
        if self._pushes == self._tree.num_leaves:
            self._move()
        self._operate(operation)
        self._pushes += 1
        self._size += 1

    def pop(self) -> int:
        """Take an element out, and return its value.

        Raises:
            IndexError: If there is none.
        """
        if not self._size:
            raise IndexError(f"Expected an element to pop, but the {self._name} is empty.")
        access = self._operate(("pop",))
        self._size -= 1
        with torch.inference_mode():
            bits = self._controller.head(access.read) > 0
        cell = self._task.operation_to_cell(("pop",))
        return self._task.decode(torch.cat((bits, bits[:, -1:]), dim=1).cpu(), cell.unsqueeze(0))[0]

    @property
    def _name(self) -> str:
        return self._task.name.replace("_", " ")

    @torch.inference_mode()
    def _begin(self) -> None:
        self._tree: Tree = self._controller.memory.init_blank(1, capacity_for(2 * self.capacity))
        self._pushes = 0
        """Since the tree was blank."""

    @torch.inference_mode()
    def _operate(self, operation: Operation) -> Access:
        query = self._query(operation)
        memory = self._controller.memory
        access = memory.attend(self._tree, query)
        self._tree = memory.write(access, query, in_place=True)
        return access

    def _query(self, operation: Operation) -> Tensor:
        """Return the embedded operation, ``[1, leaf_size]``."""
        embed = self._controller.memory.embed
        cell = self._task.operation_to_cell(operation).to(embed.blank.device)
        return embed(cell.view(1, 1, -1), torch.ones(1, 1, dtype=torch.bool, device=cell.device))[:, 0]

    @torch.inference_mode()
    def _move(self) -> None:
        """Move all elements to a fresh tree."""
        leaves = [self._operate(("pop",)).read.clone() for _ in range(self._size)]
        self._begin()
        memory = self._controller.memory
        push = self._query(("push", *(0 for _ in self._task.operands)))  # type: ignore[arg-type]
        for leaf in reversed(leaves) if self._task.last_in_first_out else leaves:
            self._tree = memory.put(memory.attend(self._tree, push), leaf, in_place=True)
        self._pushes = self._size
