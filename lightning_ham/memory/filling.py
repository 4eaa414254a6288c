"""A memory's parameters, and how it builds trees from cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_ham.memory.arguments import check_blank, check_cells, check_grid, check_sizes
from lightning_ham.memory.transforms import Embed, JoinKind, Search, Write, make_join, on_grid
from lightning_ham.memory.tree import Tree, build, build_blank, check_num_leaves


class Filling(nn.Module):
    """The four transformations of a memory, and how its tree is filled; see :class:`HierarchicalAttentiveMemory`."""

    def __init__(
        self,
        input_size: int,
        query_size: int,
        leaf_size: int,
        hidden_size: int | None,
        join: JoinKind,
        real_inputs: int,
        grid: float | None,
    ) -> None:
        super().__init__()
        check_sizes(input_size, query_size, leaf_size, hidden_size, real_inputs)
        check_grid(grid)
        self.input_size, self.query_size, self.leaf_size = input_size, query_size, leaf_size
        self._grid, self._real_inputs = grid, real_inputs
        self.cell_noise = 0.0
        """Standard deviation of the noise that :meth:`embed_cells` adds in training."""
        hidden = hidden_size or leaf_size
        self.embed = Embed(input_size, leaf_size, hidden, real_inputs, grid)
        self.join = make_join(join, leaf_size, hidden, 2 * real_inputs, grid)
        self.search = Search(leaf_size, query_size, hidden)
        self.write_leaf = Write(leaf_size, query_size, real_inputs, grid)

    @property
    def grid(self) -> float | None:
        """EMBED, JOIN and WRITE round the numbers of nodes to multiples of this; None: they do not round.

        Reals in nodes (``real_inputs``) and leaves given to ``put`` are not rounded, nor is the mixture of old and new
        leaves that ``soft`` writes.
        """
        return self._grid

    @grid.setter
    def grid(self, grid: float | None) -> None:
        check_grid(grid)
        self._grid = self.embed.grid = self.join.grid = self.write_leaf.grid = grid

    def init(self, inputs: Tensor, occupied: Tensor | None = None) -> Tree:
        """Fill the leaves with embedded inputs and join them bottom-up.

        Args:
            inputs: One input per leaf, ``[batch, num_leaves, input_size]``; ``num_leaves`` is a power of two.
            occupied: Which leaves hold an input, ``[batch, num_leaves]``; the others become blank. All by default.

        Raises:
            ValueError: If the shapes do not fit.
        """
        occupied = check_cells(inputs, occupied, "num_leaves", self.input_size, self.embed.blank.dtype)
        check_num_leaves(inputs.shape[1])
        return build(self.embed(inputs, occupied), self.join)

    def init_blank(self, batch: int, num_leaves: int) -> Tree:
        """Return trees whose leaves are all blank; ``num_leaves`` is a power of two.

        Raises:
            ValueError: If an argument is invalid.
        """
        check_blank(batch, num_leaves)
        return build_blank(self._rounded(self.embed.blank), batch, num_leaves, self.join)

    def embed_cells(self, inputs: Tensor, occupied: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Embed cells, blank where not ``occupied``; in training, add Gaussian noise of deviation ``cell_noise``.

        The noise makes JOIN learn to correct small errors, so that they do not add up on the way to the root of a deep
        tree.

        Args:
            inputs: ``[batch, cells, input_size]``.
            occupied: Which cells hold an input, ``[batch, cells]``.
            generator: Source of the noise; torch's global one if not given.

        Returns:
            ``[batch, cells, leaf_size]``.

        Raises:
            ValueError: If the shapes do not fit.
        """
        check_cells(inputs, occupied, "cells", self.input_size, self.embed.blank.dtype)
        leaves: Tensor = self.embed(inputs, occupied)
        if not (self.training and self.cell_noise > 0):
            return leaves
        noise = torch.randn(leaves.shape, dtype=leaves.dtype, device=leaves.device, generator=generator)
        return self._rounded(leaves + self.cell_noise * noise)

    def _rounded(self, leaves: Tensor) -> Tensor:
        """Return leaves ``[..., leaf_size]`` rounded to the grid."""
        return on_grid(leaves, self._grid, 2 * self._real_inputs)
