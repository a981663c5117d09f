"""The processes of a run, or the one that there is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

# Functions there have the default group for a default, as it is when they are imported. An optimiser
# imports them; after init_process_group that would keep the group, and Gloo's threads, beyond
# destroy_process_group, and one that lets go of a tensor while Python ends aborts the process.
import torch.distributed.nn  # noqa: F401
from torch import Tensor, nn

from adaptau_ext.distributed.collectives import gather_rows


@dataclass(frozen=True)
class World:
    """Which process this is, of how many. With one, everything here does nothing.

    Attributes:
        rank: of this process. size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Of torch.distributed's default group, or a single process."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def counts(self, n: int) -> list[int]:
        """n things divided among the ranks in order, as torch.chunk and DTensor do: the last ones may
        have fewer, or none."""
        share = -(-n // self.size)
        return [max(0, min(share, n - rank * share)) for rank in range(self.size)]

    def part(self, n: int) -> slice:
        """This rank's of n things."""
        counts = self.counts(n)
        start = sum(counts[: self.rank])
        return slice(start, start + counts[self.rank])

    def gathered(self, x: Tensor, n: int) -> Tensor:
        """All ranks' parts of n rows, in order."""
        return x if self.size == 1 else gather_rows(x, self.counts(n))

    def summed(self, x: Tensor) -> Tensor:
        """Summed over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Each rank's share of every gradient becomes the whole of it."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = parameter.new_zeros(parameter.shape)
            dist.all_reduce(parameter.grad)

    def collected(self, mine: Any) -> list[Any]:
        """Every rank's object."""
        if self.size == 1:
            return [mine]
        everybodys: list[Any] = [None] * self.size
        dist.all_gather_object(everybodys, mine)
        return everybodys
