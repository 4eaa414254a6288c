"""The base class of estimators, which choose a leaf and send a gradient to the choice; and the record of an access."""

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
    """How compiled loops carry out an estimator."""

    counterfactual: bool = False
    """Whether they also descend from every sibling not taken, and send the read's gradient through the branches."""
    through_write: bool = False
    """Whether they also send the gradient of the write's place through the branches; needs ``counterfactual``."""


class Rejoins(Protocol):
    """The part of a memory that an estimator needs to re-join a tree."""

    @property
    def join(self) -> Join:
        """JOIN."""
        ...

    def put(self, access: Access, leaf: Tensor, *, in_place: bool = False) -> Tree:
        """Put a leaf where an access arrived, and re-join its ancestors."""
        ...


class Estimator:
    """Chooses a leaf and sends a gradient to the choice; this base class goes right iff SEARCH is positive.

    Subclasses override what differs and hold no state. They are registered in the table of
    :mod:`lightning_ham.memory.attention.registry`, or by another package's entry point in the group
    ``lightning_ham.estimators``; no other module needs to know them.
    """

    trains: ClassVar[bool] = True
    """Whether it may be used in training; else only in evaluation."""
    uses_rewards: ClassVar[bool] = False
    """Whether SEARCH learns by the score function: from rewards, and the log-probability of the branches."""
    scales_noise: ClassVar[bool] = False
    """Whether the memory's ``noise`` scales the noise that samples branches."""
    shares_query: ClassVar[bool] = False
    """Whether the query gets only the memory's ``query_share`` of the gradients of SEARCH and WRITE."""
    in_place: ClassVar[bool] = True
    """Whether a tree with gradients may be changed in place: only if no access touches the whole tree."""
    compiled: ClassVar[Compiled | None] = None
    """How compiled loops carry it out; None if they cannot. Of its methods they call ``noise_count``, ``draw_noise``
    and ``noise_scale`` only."""
    why_not_compiled: ClassVar[str] = "is none that compiled loops know"
    """The predicate of the error message, if ``compiled`` is None."""

    def __init_subclass__(cls) -> None:
        """Reset ``compiled`` unless the subclass sets it: compiled loops do not call all methods of a subclass.

        Raises:
            TypeError: If compiled loops are to carry it out, but it has an entropy of its own, which they ignore.
        """
        super().__init_subclass__()
        if "compiled" not in vars(cls):
            cls.compiled = None
        if cls.compiled is not None and cls.entropy is not Estimator.entropy:
            raise TypeError(f"Expected {cls.__name__} to leave out `compiled`, as compiled loops ignore its `entropy`.")

    def noise_count(self, depth: int) -> int:
        """Return how many noise samples one descent needs in a tree of ``depth`` levels of decisions."""
        return 0

    def draw_noise(
        self, batch: int, depth: int, like: Tensor, generator: torch.Generator | None = None, scale: float = 1.0
    ) -> Tensor:
        """Draw the noise of one descent, ``[batch, noise_count(depth)]``, of the type and on the device of ``like``.

        Args:
            batch: Episodes.
            depth: Levels of decisions.
            like: Gives type and device.
            generator: Source of the samples; torch's global one if not given.
            scale: Factor of the noise; ignored unless ``scales_noise``.
        """
        return logistic_noise(batch, self.noise_count(depth), like, generator, scale=self.noise_scale(scale))

    def noise_scale(self, scale: float) -> float:
        """Return the factor of the noise, given the memory's ``noise``."""
        return scale if self.scales_noise else 1.0

    def descend(self, tree: Tree, query: Tensor, search: Search, noise: Tensor) -> Descent:
        """Choose a leaf of every tree, given the noise of :meth:`draw_noise` and a query ``[batch, query_size]``."""
        return descend(tree, query, search, noise)

    def read(self, access: Access, descent: Descent, query: Tensor, search: Search) -> Access:
        """Return the access with its final ``read``; until now that is the attended leaf."""
        return access

    def write(self, access: Access, query: Tensor, write: Write) -> Tensor:
        """Return the new leaves in the form for :meth:`rejoin`: here the attended one, ``[batch, leaf_size]``."""
        leaf: Tensor = write(access.path[:, -1], query)
        return leaf

    def rejoin(self, memory: Rejoins, access: Access, leaves: Tensor, *, in_place: bool = False) -> Tree:
        """Return the tree with the new leaves of :meth:`write`, and all nodes above them re-joined.

        Args:
            memory: Provides JOIN and puts a leaf where an access arrived.
            access: The access that is written to.
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
    """The result of one descent, with all that :meth:`lightning_ham.HierarchicalAttentiveMemory.write` needs."""

    read: Tensor
    """The value read, ``[batch, leaf_size]``: the attended leaf, or the weighted sum of all for ``soft``."""
    leaf: Tensor
    """Index of the attended leaf from 0 on the left, ``[batch]``; the most probable one for ``soft``."""
    logits: Tensor
    """SEARCH along the path to that leaf, ``[batch, depth]``."""
    path: Tensor
    """The nodes from the root to the leaf, ``[batch, depth + 1, leaf_size]``."""
    siblings: Tensor
    """Their siblings, from the level below the root to the leaves, ``[batch, depth, leaf_size]``."""
    weights: Tensor
    """Weights of a write: for ``soft`` of every leaf, ``[batch, num_leaves]``; for ``straight_through_write`` 1 for the
    attended leaf and 0 for ``others``, with a gradient, ``[batch, depth + 1]``; else ``[batch, 0]``."""
    tree: Tree
    """The memory's state, the input of a write."""
    others: Tensor | None = None
    """For ``straight_through_write``, heap rows of the counterfactual leaves, ``[batch, depth]``."""
    query_share: float = 1.0
    """Share of WRITE's gradient that the query gets."""
    estimator: Estimator = Estimator()
    """Chose the leaf."""
    noise_scale: float = 1.0
    """Factor of the logistic noise that sampled the branches."""

    @property
    def branch_logits(self) -> Tensor:
        """Logits of the probabilities of sampling the right branch, ``[batch, depth]``."""
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
    """Return the tree with ``leaf`` ``[batch, leaf_size]`` where ``access`` arrived, and its ancestors re-joined."""
    tree = access.tree
    rows = path_rows(access.leaf + tree.num_leaves, tree.depth)
    path = rejoin_path(rows, leaf, access.siblings, join)
    return replace_rows(tree, rows, path, in_place=in_place)
