"""Each rank's lists of items, seen from a part of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptau_ext.distributed.collectives import Group, gather_rows, row_counts

Pairs = tuple[Tensor, Tensor]  # rows and items of the entries, sorted by row, then by item


def gather_pairs(csr: Pairs | None, counts: Sequence[int], group: Group, device: torch.device) -> Pairs:
    """All ranks' (indptr, indices), rows numbered on from rank to rank, as entries.

    Args:
        counts: rows of every rank.
    """
    indptr, indices = (
        csr if csr is not None else (None, torch.empty(0, dtype=torch.int64, device=device))
    )
    own = counts[torch.distributed.get_rank(group)]
    size = torch.zeros(own, dtype=torch.int64, device=device) if indptr is None else indptr.diff()
    sizes = gather_rows(size, counts, group)
    entries = gather_rows(indices, row_counts(indices.numel(), group, device), group)
    rows = torch.repeat_interleave(torch.arange(sizes.numel(), device=device), sizes)
    return rows, entries


def of_part(pairs: Pairs, first: int, last: int) -> Pairs:
    """The entries of items [first, last), numbered from there."""
    rows, items = pairs
    inside = (items >= first) & (items < last)
    return rows[inside], items[inside] - first


def csr_of(pairs: Pairs, n_rows: int, n_items: int) -> tuple[Tensor, Tensor]:
    """(indptr, indices) of entries in any order, each once."""
    key = torch.unique(pairs[0] * max(n_items, 1) + pairs[1])
    rows = torch.div(key, max(n_items, 1), rounding_mode="floor")
    borders = torch.arange(n_rows + 1, device=key.device)
    return torch.searchsorted(rows, borders), key - rows * max(n_items, 1)
