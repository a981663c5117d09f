"""What training and evaluation ask of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adaptau_ext.ops import Normalize


class Rows(NamedTuple):
    """A batch's embeddings.

    Attributes:
        u: `[B, d]`, of the batch's users.
        i: `[B, d]`, of the batch's items, or `[n_items, d]`, of the catalogue.
        user_squares: |rows used|^2 / 2 of the users, for the regulariser.
        item_squares: the same of the batch's items; None where `i` is a parameter, whose rows (those of
            sampled negatives too) the loss regularises itself.
    """

    u: Tensor
    i: Tensor
    user_squares: Tensor
    item_squares: Tensor | None


class Recommender(nn.Module, ABC):
    """An embedding model: users and items become vectors, whose products are scores.

    Subclass it and Trainer trains it with every loss and temperature of this package: `rows` is the
    training pass, `embeddings` are what is ranked with.

    Attributes:
        ranking: how `embeddings()` are scored where no setting says so, "both" for cosines, "none" for
            inner products; None for the way the loss scores them.
        sparse: whether gradients of the tables that `lookups` names are sparse, as `DeferredAdam` wants
            them. Trainer sets it.
    """

    ranking: Normalize | None = None
    sparse: bool = False

    def lookups(
        self, users: Tensor, items: Tensor, *, catalogue: bool
    ) -> list[tuple[nn.Parameter, Tensor]]:
        """Tables of which `rows` reads nothing but a few rows, and which. Default: none is so."""
        return []

    @abstractmethod
    def rows(
        self,
        users: Tensor,  # [B] int64
        items: Tensor,  # [B] int64
        *,
        catalogue: bool,
        generator: torch.Generator | None = None,
    ) -> Rows:
        """The embeddings of a batch of pairs, with gradients.

        Args:
            catalogue: all items' embeddings instead of the batch's.
            generator: of dropout masks.
        """

    @abstractmethod
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """All users' `[n_users, d]` and all items' `[n_items, d]`, without dropout."""


def half_squares(*rows: Tensor) -> Tensor:
    """|rows|^2 / 2, summed."""
    return sum((x.square().sum() for x in rows), start=torch.zeros((), device=rows[0].device)) / 2
