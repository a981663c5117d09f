"""Embedding tables whose rows lie on different ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adaptau_ext.distributed.world import World

_ROWS_A_DRAW = 1 << 16


class ShardedTable(nn.Parameter):
    """This rank's rows of a table `[n_rows, dim]`: a parameter like any other, on each rank its own.

    Attributes:
        n_rows: of the whole table. first, last: this rank's rows.
    """

    n_rows: int
    first: int
    last: int

    @classmethod
    def xavier(cls, n_rows: int, dim: int, generator: torch.Generator, world: World) -> ShardedTable:
        """Xavier-uniform rows: those that one process would have drawn, on any number of ranks."""
        part = world.part(n_rows)
        bound = math.sqrt(6 / (n_rows + dim))
        own = torch.empty(part.stop - part.start, dim)
        for start in range(0, n_rows, _ROWS_A_DRAW):  # all are drawn, the others' forgotten
            drawn = torch.empty(min(_ROWS_A_DRAW, n_rows - start), dim)
            drawn.uniform_(-bound, bound, generator=generator)
            low, high = max(start, part.start), min(start + len(drawn), part.stop)
            if low < high:
                own[low - part.start : high - part.start] = drawn[low - start : high - start]
        table = cls(own)
        table.n_rows, table.first, table.last = n_rows, part.start, part.stop
        return table

    def holds(self, rows: Tensor) -> Tensor:
        """Which of some rows of the whole table are here."""
        return (rows >= self.first) & (rows < self.last)
