"""LightGCN: free embeddings, smoothed over the graph of training interactions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from adaptau_ext.arguments import Exclusion
from adaptau_ext.graph import BipartiteGraph
from adaptau_ext.models.mf import xavier_tables
from adaptau_ext.models.recommender import Recommender, Rows, half_squares


class LightGCN(Recommender):
    """The mean of the embeddings after 0, 1, .. n_layers hops.

    Ranks by inner product, as published, even if the loss is of cosines (TrainConfig.ranking changes
    that). The regulariser is of the batch's rows after every hop.

    Args:
        interactions: the training pairs, as for BipartiteGraph.
        hop_dropout: of elements of each hop's output, while training; what is left propagates on.

    Source: LightGCN (He et al., SIGIR 2020).
    """

    ranking = "none"

    def __init__(
        self,
        interactions: Exclusion,
        dim: int = 64,
        n_layers: int = 3,
        *,
        hop_dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.graph = BipartiteGraph(interactions, reorder=True)
        self.n_layers, self.hop_dropout = n_layers, hop_dropout
        self.user_table, self.item_table = xavier_tables(
            self.graph.n_users, self.graph.n_items, dim, seed
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LightGCN:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.graph = self.graph.to(self.user_table.device)
        return self

    def rows(
        self,
        users: Tensor,
        items: Tensor,
        *,
        catalogue: bool,
        generator: torch.Generator | None = None,
    ) -> Rows:
        """Rows of the mean; the layers are kept apart for the regulariser."""
        user_layers, item_layers = self.graph.layers(
            self.user_table,
            self.item_table,
            self.n_layers,
            users=users,
            items=None if catalogue else items,
            dropout=self.hop_dropout if self.training else 0.0,
            generator=generator,
        )
        item_rows = item_layers[:, items] if catalogue else item_layers
        return Rows(
            user_layers.mean(0), item_layers.mean(0), half_squares(user_layers), half_squares(item_rows)
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Mean over the layers, of all users and items."""
        return self.graph.propagate(self.user_table, self.item_table, self.n_layers)
