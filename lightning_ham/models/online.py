"""A data structure that a trained memory plays, one operation at a time."""

from __future__ import annotations

from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.engines import may_compile
from lightning_ham.engines.obstacles import obstacle, replaced
from lightning_ham.memory import Tree
from lightning_ham.tasks import InstanceError, capacity_for
from lightning_ham.tasks.plain import plain
from lightning_ham.tasks.structures import Operation, Structure

MOST_KEPT = 4096
"""Operations and answers whose form for the network, and for people, is kept: the bundled tasks have fewer."""


class OpenStructure:
    """A stack, a queue or a priority queue whose elements are in the memory alone.

    An operation is one access to the memory, O(log n). What comes out is the network's own answer, right or wrong. Its
    weights are to stay as they are meanwhile.

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
        make = _Compiled if _Compiled.suits(controller) else _Plain
        self._network = make(controller, self._num_leaves)
        self._queries: dict[Operation, Any] = {}
        self._values: dict[bytes, int] = {}
        self._size = 0
        self._pushes = 0
        """Since the tree was blank."""

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
        if self._pushes == self._num_leaves:
            self._move()
        self._network.access(self._query(operation))
        self._pushes += 1
        self._size += 1

    def pop(self) -> int:
        """Take an element out, and return its value.

        Raises:
            IndexError: If there is none.
        """
        if not self._size:
            raise IndexError(f"Expected an element to pop, but the {self._name} is empty.")
        read = self._network.access(self._query(("pop",)))
        self._size -= 1
        return self._value(self._network.bits(read))

    @property
    def _name(self) -> str:
        return self._task.name.replace("_", " ")

    @property
    def _num_leaves(self) -> int:
        return capacity_for(2 * self.capacity)

    def _move(self) -> None:
        """Move all elements to a fresh tree."""
        leaves = [self._network.access(self._query(("pop",))) for _ in range(self._size)]
        self._network.clear()
        push = self._query(("push", *(0 for _ in self._task.operands)))  # type: ignore[arg-type]
        for leaf in reversed(leaves) if self._task.last_in_first_out else leaves:
            self._network.put(push, leaf)
        self._pushes = self._size

    def _query(self, operation: Operation) -> Any:
        """Return the embedded operation, as the network wants it."""
        query = self._queries.get(operation)
        if query is None:
            query = self._network.embed(self._task.operation_to_cell(operation))
            if len(self._queries) < MOST_KEPT:
                self._queries[operation] = query
        return query

    def _value(self, bits: bytes) -> int:
        """Return the value that output bits say, a byte each."""
        value = self._values.get(bits)
        if value is None:
            output = torch.frombuffer(bytearray(bits), dtype=torch.bool)
            cell = self._task.operation_to_cell(("pop",))
            output = nn.functional.pad(output, (0, self._task.output_size - len(output)))  # hints, which say no value
            value = self._task.decode(output.unsqueeze(0), cell.unsqueeze(0))[0]
            if len(self._values) < MOST_KEPT:
                self._values[bits] = value
        return value


class _Compiled:
    """A raw HAM that carries out one operation after the other, in compiled loops and in the caller's thread alone.

    PyTorch divides even small products among its threads; where other programs keep the cores busy, an access would
    wait for them a hundred times as long as it computes.

    Args:
        controller: The network, of which :meth:`suits` is true.
        num_leaves: Leaves of the tree, which are blank at first.
    """

    @staticmethod
    def suits(controller: RawHAM) -> bool:
        """Whether compiled loops do what the controller's modules do."""
        memory = controller.memory
        modules = memory.join, memory.search, memory.write_leaf, memory.embed, controller.head
        return (
            may_compile(memory.engine)
            and not replaced(memory, "attend", "write", "put")
            and obstacle(memory.embed.blank, *modules) is None
        )

    @torch.inference_mode()
    def __init__(self, controller: RawHAM, num_leaves: int) -> None:
        from lightning_ham.engines.session import open_session, perceptron  # compiled loops: they take long to import

        memory = controller.memory
        self._dtype = memory.embed.blank.dtype
        self._embed, self._head = perceptron(memory.embed.mlp), perceptron(controller.head)
        self._session = open_session(memory, memory.init_blank(1, num_leaves))
        self.access, self.put, self.clear = self._session.access, self._session.put, self._session.restart

    def embed(self, cell: Tensor) -> Any:
        """Return a cell ``[input_size]`` embedded, ``[1, leaf_size]``."""
        return self._embed(cell.to(self._dtype).numpy())[None]

    def bits(self, read: Any) -> bytes:
        """Return the output bits for what was read, a byte each."""
        return (self._head(read) > 0).tobytes()


class _Plain:
    """The same in plain PyTorch, for modules of other kinds and devices other than the CPU."""

    @torch.inference_mode()
    def __init__(self, controller: RawHAM, num_leaves: int) -> None:
        self._memory, self._head = controller.memory, controller.head
        self._num_leaves = num_leaves
        self.clear()

    @torch.inference_mode()
    def clear(self) -> None:
        """Begin with blank leaves."""
        self._tree: Tree = self._memory.init_blank(1, self._num_leaves)

    @torch.inference_mode()
    def embed(self, cell: Tensor) -> Tensor:
        """Return a cell ``[input_size]`` embedded, ``[1, leaf_size]``."""
        cell = cell.to(self._memory.embed.blank)
        occupied = torch.ones(1, 1, dtype=torch.bool, device=cell.device)
        return self._memory.embed(cell.view(1, 1, -1), occupied)[:, 0]

    @torch.inference_mode()
    def access(self, query: Any) -> Any:
        """Carry out an embedded operation; return what was read."""
        access = self._memory.attend(self._tree, query)
        self._tree = self._memory.write(access, query, in_place=True)
        return access.read.clone()

    @torch.inference_mode()
    def put(self, query: Any, leaf: Any) -> None:
        """Put a leaf where the network would carry out an embedded operation."""
        self._tree = self._memory.put(self._memory.attend(self._tree, query), leaf, in_place=True)

    @torch.inference_mode()
    def bits(self, read: Any) -> bytes:
        """Return the output bits for what was read, a byte each."""
        return (self._head(read)[0] > 0).cpu().numpy().tobytes()
