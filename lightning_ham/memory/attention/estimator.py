"""What an estimator is: how a leaf is chosen, and how a gradient reaches the choice; and what an access tells."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_ham.memory.attention.descent import (
    Descent,
    Search,
    branch_logits,
    descend,
    logistic_noise,
    path_entropy,
    path_log_prob,
)
from lightning_ham.memory.transforms import Write
from lightning_ham.memory.tree import Join, Tree, path_rows, rejoin_path, replace_rows


class Compiled(NamedTuple):
    """How compiled loops do what an estimator does."""

    counterfactual: bool = False
    """Whether they descend from every sibling not taken too, and send the read's gradient through the branches."""
    through_write: bool = False
    """Whether they send the gradient of the write's place through the branches too; only with ``counterfactual``."""


class Rejoins(Protocol):
    """A memory, as far as an estimator re-joins its tree."""

    @property
    def join(self) -> Join:
        """JOIN."""
        ...

    def put(self, access: Access, leaf: Tensor, *, in_place: bool = False) -> Tree:
        """Put a leaf where an access arrived, and join its ancestors again."""
        ...


class Estimator:
    """How a leaf is chosen, and how a gradient reaches the choice; this one goes right iff SEARCH is positive.

    A subclass overrides what it does otherwise; it holds no state. It is named in the table of
    :mod:`lightning_ham.memory.attention.registry`, or in another package's entry-point group
    ``lightning_ham.estimators``. Nothing else has to know it.
    """

    trains: ClassVar[bool] = True
    """Whether a training may use it; else it is for evaluation alone."""
    uses_rewards: ClassVar[bool] = False
    """Whether SEARCH learns by the score function: from rewards, and the log-probability of the branches."""
    scales_noise: ClassVar[bool] = False
    """Whether the noise with which branches are sampled is scaled by the memory's ``noise``."""
    shares_query: ClassVar[bool] = False
    """Whether only the memory's ``query_share`` of the gradients of SEARCH and WRITE goes on to the query."""
    in_place: ClassVar[bool] = True
    """Whether a tree with gradients may be changed in place: an access touches some paths, never the whole tree."""
    compiled: ClassVar[Compiled | None] = None
    """How compiled loops do the same; None if they do not know it."""
    why_not_compiled: ClassVar[str] = "is none that compiled loops know"
    """What is told where ``compiled`` is None."""

    def __init_subclass__(cls) -> None:
        """Take no subclass for one that compiled loops know unless it says so: they do not call its methods."""
        super().__init_subclass__()
        if "compiled" not in vars(cls):
            cls.compiled = None

    def noise_count(self, depth: int) -> int:
        """Return how many numbers of noise one descent takes in a tree of ``depth`` levels of decisions."""
        return 0

    def draw_noise(
        self, batch: int, depth: int, like: Tensor, generator: torch.Generator | None = None, scale: float = 1.0
    ) -> Tensor:
        """Draw the noise of one descent, ``[batch, noise_count(depth)]``, of the type and on the device of ``like``.

        Args:
            batch: Episodes.
            depth: Levels of decisions.
            like: A tensor.
            generator: Source of the samples; torch's global one if not given.
            scale: Factor of the noise, if it ``scales_noise``.
        """
        return logistic_noise(batch, self.noise_count(depth), like, generator, scale=self.noise_scale(scale))

    def noise_scale(self, scale: float) -> float:
        """Return the factor of the noise where the memory's ``noise`` is ``scale``."""
        return scale if self.scales_noise else 1.0

    def descend(self, tree: Tree, query: Tensor, search: Search, noise: Tensor) -> Descent:
        """Choose a leaf of every tree, given the noise of :meth:`draw_noise` and a query ``[batch, query_size]``."""
        return descend(tree, query, search, noise)

    def read(self, access: Access, descent: Descent, query: Tensor, search: Search) -> Access:
        """Return the access as it is read; ``access.read`` is the attended leaf so far."""
        return access

    def write(self, access: Access, query: Tensor, write: Write) -> Tensor:
        """Return the new leaves, as :meth:`rejoin` takes them: here the attended one, ``[batch, leaf_size]``."""
        leaf: Tensor = write(access.path[:, -1], query)
        return leaf

    def rejoin(self, memory: Rejoins, access: Access, leaves: Tensor, *, in_place: bool = False) -> Tree:
        """Return the tree with the new leaves of :meth:`write`, and all nodes above them joined again.

        Args:
            memory: Has JOIN, and puts a leaf where an access arrived.
            access: What was attended to.
            leaves: The new leaves.
            in_place: Overwrite the tree instead of copying it; only where no gradient is needed.
        """
        return memory.put(access, leaves, in_place=in_place)

    def entropy(self, access: Access) -> Tensor:
        """Return the entropy of the choice in nats, ``[batch]``: of the branches on the path, summed over its levels.

        Over sampled paths its mean is the entropy of the choice of a leaf.
        """
        return path_entropy(access.branch_logits)


class Access(NamedTuple):
    """What one descent found, and what :meth:`lightning_ham.HierarchicalAttentiveMemory.write` needs to change it."""

    read: Tensor
    """The value read, ``[batch, leaf_size]``: the attended leaf, or the weighted sum of all for ``soft``."""
    leaf: Tensor
    """Index of the attended leaf from 0 on the left, ``[batch]``; the most probable one for ``soft``."""
    logits: Tensor
    """SEARCH along the path to that leaf, ``[batch, depth]``."""
    path: Tensor
    """The nodes from the root to the leaf, ``[batch, depth + 1, leaf_size]``."""
    siblings: Tensor
    """The nodes beside them, from the level below the root to the leaves, ``[batch, depth, leaf_size]``."""
    weights: Tensor
    """How much is written: for ``soft`` to every leaf, ``[batch, num_leaves]``; for ``straight_through_write`` to the
    attended leaf and to ``others``, 1 and 0 with a gradient, ``[batch, depth + 1]``; else ``[batch, 0]``."""
    tree: Tree
    """The memory's state, which a write changes."""
    others: Tensor | None = None
    """For ``straight_through_write``, heap rows of leaves that could have been written instead, ``[batch, depth]``."""
    query_share: float = 1.0
    """Share of WRITE's gradient that goes on to the query."""
    estimator: Estimator = Estimator()
    """How the leaf was chosen."""
    noise_scale: float = 1.0
    """Factor of the logistic noise with which the branches were sampled."""

    @property
    def branch_logits(self) -> Tensor:
        """Logits of the probabilities with which the branches to the right were sampled, ``[batch, depth]``."""
        return branch_logits(self.logits, self.noise_scale)

    @property
    def log_prob(self) -> Tensor:
        """Log-probability of the branches taken, ``[batch]``."""
        return path_log_prob(self.branch_logits, self.leaf)

    @property
    def entropy(self) -> Tensor:
        """Entropy of the choice in nats, ``[batch]``; see :meth:`Estimator.entropy`."""
        return self.estimator.entropy(self)


def put_leaf(access: Access, leaf: Tensor, join: Join, *, in_place: bool = False) -> Tree:
    """Return the tree with ``leaf`` ``[batch, leaf_size]`` where ``access`` arrived, and its ancestors joined again."""
    tree = access.tree
    rows = path_rows(access.leaf + tree.num_leaves, tree.depth)
    path = rejoin_path(rows, leaf, access.siblings, join)
    return replace_rows(tree, rows, path, in_place=in_place)
