"""Adap-tau where nobody has all embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adaptau_ext.distributed.collectives import gather_rows
from adaptau_ext.distributed.world import World
from adaptau_ext.temperature import AdaptiveTemperature

_USERS_A_ROUND = 1 << 14


class ShardedAdaptiveTemperature(AdaptiveTemperature):
    """AdaptiveTemperature whose `start_epoch` takes this rank's rows of both tables.

    Moves every user's embedding to every rank, and sums a few vectors over all, once an epoch from the
    end of the warm-up on.

    Args:
        others: of AdaptiveTemperature, the same on all ranks.
    """

    def __init__(
        self, users: Tensor, items: Tensor, n_users: int, n_items: int, **options: Any
    ) -> None:
        super().__init__(users, items, n_users, n_items, **options)
        self._world = World.current()

    def _gaps(self, u: Tensor, i: Tensor) -> tuple[float, float]:
        world = self._world
        own_users, own_items = world.part(self.n_users), world.part(self.n_items)
        active = self._active[(self._active >= own_users.start) & (self._active < own_users.stop)]
        rows, i = u[active - own_users.start].double(), i.double()
        mean_user = world.summed(rows.sum(0)) / len(self._active)
        mean_item = world.summed(i.sum(0)) / self.n_items
        mean = float(mean_user @ mean_item)

        # of the pairs whose item is here, with every user's embedding in turn
        users, items = self._pairs
        here = (items >= own_items.start) & (items < own_items.stop)
        users, items = users[here], items[here] - own_items.start
        counts = world.counts(self.n_users)
        sums = torch.zeros(2, dtype=torch.float64, device=u.device)
        for start in range(0, max(counts), _USERS_A_ROUND):
            sizes = [max(0, min(_USERS_A_ROUND, count - start)) for count in counts]
            everybodys = gather_rows(u[start : start + _USERS_A_ROUND], sizes)
            first = 0
            for rank, size in enumerate(sizes):
                begin = sum(counts[:rank]) + start
                these = (users >= begin) & (users < begin + size)
                u_rows = everybodys[first : first + size][users[these] - begin]
                cosine = (u_rows.double() * i[items[these]]).sum(1)
                sums += torch.stack([cosine.sum(), cosine.square().sum()])
                first += size
        n = self._pairs[0].numel()
        total, squares = (world.summed(sums) / n).tolist()
        if not self.variance:
            return total - mean, 0.0
        user_squares = world.summed(rows.T @ rows) / len(self._active)
        item_squares = world.summed(i.T @ i) / self.n_items
        square = float((user_squares * item_squares).sum())
        return total - mean, squares - total**2 - (square - mean**2)
