"""Matrix factorisation: one free embedding for each user and item."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MF(nn.Module):
    """User and item tables, Xavier-uniform, `[n_users, d]` and `[n_items, d]`."""

    def __init__(self, n_users: int, n_items: int, dim: int = 64, seed: int | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed) if seed is not None else None
        self.user_table = nn.Parameter(torch.empty(n_users, dim))
        self.item_table = nn.Parameter(torch.empty(n_items, dim))
        for table in (self.user_table, self.item_table):
            nn.init.xavier_uniform_(table, generator=generator)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """All users' `[n_users, d]` and all items' `[n_items, d]`, to score by cosine."""
        return self.user_table, self.item_table
