"""What the value of a node means: what is in the leaves below it, and where an operation must go.

A meaning is an integer, so that arrays of them can be joined at once. Two kinds of structure are known:

- *In order* (stack, queue): the leaves from left to right are first of one kind, then of the next. A meaning is the set
  of kinds below the node, as bits.
- *By priority* (priority queue): a meaning is whether a leaf is free, and the least pair pushed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from lightning_ham.tasks.structures import NUM_PRIORITIES, NUM_VALUES, Operation, Structure

Array = np.ndarray[Any, Any]

PUSH, POP = 0, 1
"""Index of an operation's kind in the branches of a node."""
NOT_ASKED = -1
"""Branch of an operation that never comes to a node, or may take either branch there."""
NEVER = -1
"""Meaning of two children that never are siblings."""


class Meanings(ABC):
    """The meanings of a structure's leaves and nodes.

    Args:
        num_pushes: Number of different pushes; push ``p`` has its operands as one integer ``p``.
    """

    blank: int
    """Meaning of a leaf that no operation has changed."""
    freed: int
    """Meaning of a leaf after a pop."""

    def __init__(self, num_pushes: int) -> None:
        self.num_pushes = num_pushes

    @abstractmethod
    def pushed(self, pushes: Array) -> Array:
        """Return the meaning of leaves after pushes, shaped as ``pushes``."""

    @abstractmethod
    def is_free(self, meaning: int) -> bool:
        """Return whether a push may go to a leaf of this meaning."""

    @abstractmethod
    def joined(self, left: Array, right: Array) -> Array:
        """Return the meaning of parents, or :data:`NEVER`; the arguments broadcast."""

    @abstractmethod
    def branches(self, left: Array, right: Array) -> Array:
        """Return where a push and a pop must go, ``[..., 2]``: 0 left, 1 right or :data:`NOT_ASKED`."""

    @abstractmethod
    def in_words(self, meaning: int) -> str:
        """Return a meaning for people."""


class InOrder(Meanings):
    """Stack and queue: a push goes to the first free leaf, a pop to the first or the last taken one.

    A stack uses a leaf again after a pop: its leaves are taken, then freed, then blank ones. A queue does not: its
    leaves are spent, then taken, then blank ones.
    """

    def __init__(self, *, spends_leaves: bool, pops_last: bool) -> None:
        super().__init__(NUM_VALUES)
        self.pops_last = pops_last
        kinds = ("spent", "taken", "blank") if spends_leaves else ("taken", "freed", "blank")
        self.kinds = {kind: 1 << index for index, kind in enumerate(kinds)}
        self.taken, self.blank = self.kinds["taken"], self.kinds["blank"]
        self.freed = self.kinds["spent" if spends_leaves else "freed"]
        self.free = self.blank | self.kinds.get("freed", 0)

    def pushed(self, pushes: Array) -> Array:
        return np.full(pushes.shape, self.taken)

    def is_free(self, meaning: int) -> bool:
        return bool(meaning & self.free)

    def joined(self, left: Array, right: Array) -> Array:
        last = 1 << np.int64(np.log2(left))
        first = right & -right
        return np.where(last <= first, left | right, NEVER)

    def branches(self, left: Array, right: Array) -> Array:
        push = _first(left & self.free, right & self.free)
        if self.pops_last:
            pop = _first(right & self.taken, left & self.taken)
            pop = np.where(pop == NOT_ASKED, NOT_ASKED, 1 - pop)
        else:
            pop = _first(left & self.taken, right & self.taken)
        return np.stack(np.broadcast_arrays(push, pop), axis=-1)

    def in_words(self, meaning: int) -> str:
        return ", then ".join(kind for kind, bit in self.kinds.items() if meaning & bit)


class ByPriority(Meanings):
    """Priority queue: a push goes to the first free leaf, a pop to one with the least pair."""

    NONE = NUM_PRIORITIES * NUM_VALUES
    """In the place of the least pair where there is none."""

    def __init__(self) -> None:
        super().__init__(NUM_PRIORITIES * NUM_VALUES)
        self.blank = self.freed = self._meaning(self.NONE, 1)

    def _meaning(self, least: Any, free: Any) -> Any:
        return 2 * least + free

    def pushed(self, pushes: Array) -> Array:
        meaning: Array = self._meaning(pushes, 0)
        return meaning

    def is_free(self, meaning: int) -> bool:
        return bool(meaning & 1)

    def joined(self, left: Array, right: Array) -> Array:
        joined: Array = self._meaning(np.minimum(left >> 1, right >> 1), (left | right) & 1)
        return joined

    def branches(self, left: Array, right: Array) -> Array:
        push = _first(left & 1, right & 1)
        pop = np.where(left >> 1 == right >> 1, NOT_ASKED, right >> 1 < left >> 1)
        return np.stack(np.broadcast_arrays(push, pop), axis=-1)

    def in_words(self, meaning: int) -> str:
        least = meaning >> 1
        pair = "no pair" if least == self.NONE else f"least pair {divmod(least, NUM_VALUES)}"
        return f"{pair}, {'a' if meaning & 1 else 'no'} free leaf"


def _first(left: Array, right: Array) -> Array:
    """Return 0 where ``left`` is not 0, else 1 where ``right`` is not, else :data:`NOT_ASKED`."""
    return np.where(left != 0, 0, np.where(right != 0, 1, NOT_ASKED))


def meanings_of(task: Structure) -> Meanings:
    """Return the meanings of a structure's nodes.

    Raises:
        ValueError: If it is another kind of structure than those that can be certified.
    """
    if task.pops == "least":
        return ByPriority()
    if task.pops in ("first", "last") and len(task.operands) == 1:
        return InOrder(spends_leaves=task.spends_leaves, pops_last=task.pops == "last")
    raise ValueError(
        f"Expected a structure that pops its first, last or least element, but got {task.name!r}, whose `pops` is "
        f"{task.pops!r}."
    )


def operation(task: Structure, push: int) -> Operation:
    """Return the push whose operands are the integer ``push``."""
    return ("push", push) if len(task.operands) == 1 else ("push", *divmod(push, NUM_VALUES))
