"""A trained memory that acts as a data structure, one operation at a time."""

from __future__ import annotations

from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from lightning_ham.controllers.raw_ham import RawHAM
from lightning_ham.engines import may_compile
from lightning_ham.engines.obstacles import has_mixed_grids, obstacle, replaced
from lightning_ham.memory import Tree
from lightning_ham.memory.transforms import on_grid
from lightning_ham.tasks import InstanceError, capacity_for
from lightning_ham.tasks.plain import plain
from lightning_ham.tasks.structures import Operation, Structure

_FIRST_CAPACITY = 16
"""Capacity at which an unbounded structure begins."""

MOST_KEPT = 4096
"""Most operations, and most answers, whose conversion is cached; the bundled tasks have fewer."""


class OpenStructure:
    """A stack, a queue or a priority queue whose elements exist only in the memory.

    An operation is one access to the memory, O(log n). The network answers by itself, right or wrong. Do not change its
    weights while the structure is in use.

    The network was trained on trees with a leaf for every push, and nothing makes it use a leaf again. So the tree has
    at least twice as many leaves as the capacity; if unbounded, as elements when it was last blank. After as many
    pushes as leaves, the elements move to a fresh tree: the network pops each one, and the vector of its leaf is put
    where the network pushes. This takes O(n log n) once in at least n / 2 pushes, so an operation still takes O(log n)
    on average, for any number of them.

    Args:
        task: The data structure.
        controller: The trained network.
        capacity: Most elements at a time; None: unbounded.

    Raises:
        TypeError: If the capacity is not a whole number.
        ValueError: If it is below 1.
    """

    def __init__(self, task: Structure, controller: RawHAM, capacity: int | None) -> None:
        if capacity is not None:
            capacity = plain(capacity)
            if type(capacity) is not int:
                raise TypeError(f"Expected a capacity that is a whole number, but got {capacity!r}.")
            if capacity < 1:
                raise ValueError(f"Expected a capacity of at least 1, but got {capacity}.")
        self.capacity = capacity
        """Most elements at a time; None if it grows like a list."""
        self._num_leaves = capacity_for(2 * (capacity or _FIRST_CAPACITY))
        self._task = task
        make = _Compiled if _Compiled.suits(controller) else _Plain
        self._network = make(controller, self._num_leaves)
        self._queries: dict[Operation, Any] = {}
        self._values: dict[bytes, int] = {}
        self._size = 0
        self._pushes = 0
        """Number since the tree was last blank, moved elements included."""

    def __len__(self) -> int:
        """Return the number of elements."""
        return self._size

    def __repr__(self) -> str:
        """Return its kind, size and capacity."""
        most = "unbounded" if self.capacity is None else f"at most {self.capacity:,}"
        return f"<{self._name}: {self._size:,} elements, {most}>"

    def push(self, *operands: SupportsIndex) -> None:
        """Add an element: ``push(value)``, or ``push(priority, value)`` for a priority queue.

        Raises:
            OverflowError: If the structure is full.
            InstanceError: If the operands do not fit the structure.
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
        """Remove an element, and return its value.

        Raises:
            IndexError: If the structure is empty.
        """
        if not self._size:
            raise IndexError(f"Expected an element to pop, but the {self._name} is empty.")
        read = self._network.access(self._query(("pop",)))
        self._size -= 1
        return self._value(self._network.bits(read))

    @property
    def _name(self) -> str:
        return self._task.name.replace("_", " ")

    def _move(self) -> None:
        """Move all elements to a fresh tree."""
        leaves = [self._network.access(self._query(("pop",))) for _ in range(self._size)]
        if self.capacity is None:
            self._num_leaves = capacity_for(2 * max(self._size, _FIRST_CAPACITY))
        self._network.clear(self._num_leaves)
        push = self._query(("push", *(0 for _ in self._task.operands)))  # type: ignore[arg-type]
        for leaf in reversed(leaves) if self._task.pops == "last" else leaves:
            self._network.put(push, leaf)
        self._pushes = self._size

    def _query(self, operation: Operation) -> Any:
        """Return the embedded operation."""
        query = self._queries.get(operation)
        if query is None:
            query = self._network.embed(self._task.operation_to_cell(operation))
            if len(self._queries) < MOST_KEPT:
                self._queries[operation] = query
        return query

    def _value(self, bits: bytes) -> int:
        """Return the value of output bits, one byte each."""
        value = self._values.get(bits)
        if value is None:
            output = torch.frombuffer(bytearray(bits), dtype=torch.bool)
            cell = self._task.operation_to_cell(("pop",))
            output = nn.functional.pad(output, (0, self._task.output_size - len(output)))  # hints carry no value
            value = self._task.decode(output.unsqueeze(0), cell.unsqueeze(0))[0]
            if len(self._values) < MOST_KEPT:
                self._values[bits] = value
        return value


class _Compiled:
    """A raw HAM that carries out single operations in compiled loops, in the caller's thread only.

    PyTorch divides even small products among its threads; if other programs keep the cores busy, an access would then
    wait a hundred times as long as it computes.

    Args:
        controller: A network that :meth:`suits`.
        num_leaves: Leaves of the tree, blank at first.
    """

    @staticmethod
    def suits(controller: RawHAM) -> bool:
        """Return whether compiled loops can replace the controller's modules."""
        memory = controller.memory
        modules = memory.join, memory.search, memory.write_leaf, memory.embed, controller.head
        return (
            may_compile(memory.engine)
            and not replaced(memory, "attend", "write", "put")
            and obstacle(memory.embed.blank, *modules) is None
            and not has_mixed_grids(memory)
            and memory.embed.real_inputs == 0
        )

    @torch.inference_mode()
    def __init__(self, controller: RawHAM, num_leaves: int) -> None:
        from lightning_ham.engines.session import perceptron  # slow to import

        memory = controller.memory
        self._dtype = memory.embed.blank.dtype
        self._embed, self._head = perceptron(memory.embed.mlp), perceptron(controller.head)
        self._grid = memory.grid
        self._memory = memory
        self._open(num_leaves)

    @torch.inference_mode()
    def clear(self, num_leaves: int) -> None:
        """Begin with a blank tree of so many leaves."""
        if num_leaves == self._num_leaves:
            self._session.restart()
        else:
            self._open(num_leaves)

    def _open(self, num_leaves: int) -> None:
        from lightning_ham.engines.session import open_session

        self._num_leaves = num_leaves
        self._session = open_session(self._memory, self._memory.init_blank(1, num_leaves))
        self.access, self.put = self._session.access, self._session.put

    def embed(self, cell: Tensor) -> Any:
        """Return a cell ``[input_size]`` embedded, ``[1, leaf_size]``."""
        query = torch.from_numpy(self._embed(cell.to(self._dtype).numpy())[None])
        return on_grid(query, self._grid).numpy()

    def bits(self, read: Any) -> bytes:
        """Return the output bits for a value read, one byte each."""
        return (self._head(read) > 0).tobytes()


class _Plain:
    """The same in plain PyTorch, for other kinds of modules and other devices than the CPU."""

    @torch.inference_mode()
    def __init__(self, controller: RawHAM, num_leaves: int) -> None:
        self._memory, self._head = controller.memory, controller.head
        self.clear(num_leaves)

    @torch.inference_mode()
    def clear(self, num_leaves: int) -> None:
        """Begin with a blank tree of so many leaves."""
        self._tree: Tree = self._memory.init_blank(1, num_leaves)

    @torch.inference_mode()
    def embed(self, cell: Tensor) -> Tensor:
        """Return a cell ``[input_size]`` embedded, ``[1, leaf_size]``."""
        cell = cell.to(self._memory.embed.blank)
        occupied = torch.ones(1, 1, dtype=torch.bool, device=cell.device)
        return self._memory.embed(cell.view(1, 1, -1), occupied)[:, 0]

    @torch.inference_mode()
    def access(self, query: Any) -> Any:
        """Carry out an embedded operation; return the value read."""
        access = self._memory.attend(self._tree, query)
        self._tree = self._memory.write(access, query, in_place=True)
        return access.read.clone()

    @torch.inference_mode()
    def put(self, query: Any, leaf: Any) -> None:
        """Put a leaf where the network would access the memory for an embedded operation."""
        self._tree = self._memory.put(self._memory.attend(self._tree, query), leaf, in_place=True)

    @torch.inference_mode()
    def bits(self, read: Any) -> bytes:
        """Return the output bits for a value read, one byte each."""
        return (self._head(read)[0] > 0).cpu().numpy().tobytes()
