"""Matrix factorisation: one free embedding for each user and item."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from adaptau_ext.dropout import dropout
from adaptau_ext.models.recommender import Recommender, Rows, half_squares


def xavier_tables(n_users: int, n_items: int, dim: int, seed: int | None) -> tuple[nn.Parameter, ...]:
    """User and item tables `[n_users, dim]` and `[n_items, dim]`, Xavier-uniform."""
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    tables = nn.Parameter(torch.empty(n_users, dim)), nn.Parameter(torch.empty(n_items, dim))
    for table in tables:
        nn.init.xavier_uniform_(table, generator=generator)
    return tables


class MF(Recommender):
    """User and item tables, Xavier-uniform.

    Args:
        user_dropout: of elements of the batch's user rows, while training.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        dim: int = 64,
        *,
        user_dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.user_dropout = user_dropout
        self.user_table, self.item_table = xavier_tables(n_users, n_items, dim, seed)

    def rows(
        self,
        users: Tensor,
        items: Tensor,
        *,
        catalogue: bool,
        generator: torch.Generator | None = None,
    ) -> Rows:
        """Rows of the tables; the catalogue is the item table itself."""
        u = embedding(users, self.user_table, sparse=self.sparse)
        i = self.item_table if catalogue else embedding(items, self.item_table, sparse=self.sparse)
        return Rows(
            dropout(u, self.user_dropout if self.training else 0, generator),
            i,
            half_squares(u),
            None if catalogue else half_squares(i),
        )

    def lookups(
        self, users: Tensor, items: Tensor, *, catalogue: bool
    ) -> list[tuple[nn.Parameter, Tensor]]:
        """The users' rows, and the items' where they are not all used."""
        return [(self.user_table, users)] + ([] if catalogue else [(self.item_table, items)])

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The tables."""
        return self.user_table, self.item_table
