"""Exact retrieval from a catalogue that is split over the ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from adaptau_ext.arguments import Exclusion, csr_pair
from adaptau_ext.distributed.collectives import Group, exchange, gather_rows, row_counts
from adaptau_ext.distributed.csr import csr_of, gather_pairs, of_part
from adaptau_ext.index import ItemIndex
from adaptau_ext.ops import Normalize
from adaptau_ext.padded import padded_topk

_ops = torch.ops.adaptau


def topk(
    u: Tensor,
    i: Tensor,
    k: int,
    *,
    first_item: int,
    exclude: Exclusion | None = None,
    normalize: Normalize = "none",
    group: Group = None,
) -> tuple[Tensor, Tensor]:
    """The k best items of the whole catalogue for each of this rank's users.

    ::

        adaptau_ext.topk(u, cat(all ranks' i), k, exclude=exclude, normalize=normalize)

    The same scores, ids and order. A user with fewer than k candidates gets ids of -1 and scores of
    -inf behind them.

    Args:
        u: `[B, d]`, this rank's users; B may differ between ranks, and be 0.
        i: `[M, d]`, this rank's items, from `first_item` on; M may be 0.
        exclude: this rank's rows, items of the whole catalogue.

    Moves `B d` numbers to every other rank and `2 B k` back.
    """
    n, device = len(u), u.device
    counts = row_counts(n, group, device)
    everybody = gather_rows(u, counts, group)
    pairs = gather_pairs(None if exclude is None else csr_pair(exclude, device), counts, group, device)
    own = csr_of(of_part(pairs, first_item, first_item + len(i)), len(everybody), len(i))
    scores, ids = padded_topk(ItemIndex(i, normalize=normalize), everybody, k, own)
    ids = torch.where(ids >= 0, ids + first_item, ids)
    back = counts, [n] * len(counts), group
    scores, ids = (
        exchange(x, *back).view(len(counts), n, k).transpose(0, 1).flatten(1) for x in (scores, ids)
    )
    order = _order(scores, ids)[:, :k]
    return scores.gather(1, order), ids.gather(1, order)


def ranks(
    u: Tensor,
    i: Tensor,
    targets: Exclusion,
    *,
    first_item: int,
    exclude: Exclusion | None = None,
    normalize: Normalize = "none",
    group: Group = None,
) -> Tensor:
    """The rank in the whole catalogue of each held-out item of this rank's users.

    ::

        adaptau_ext.ranks(u, cat(all ranks' i), targets, exclude=exclude, normalize=normalize)

    Args:
        targets, exclude: this rank's rows, items of the whole catalogue.
        others: as for `topk`.

    Returns:
        `[nnz of targets]` int64, 1 = best.

    Moves `B d` numbers and the lists to every other rank, and sums two numbers a target over all.
    """
    device, me = u.device, dist.get_rank(group)
    last_item = first_item + len(i)
    counts = row_counts(len(u), group, device)
    everybody = gather_rows(u, counts, group)
    own = csr_pair(targets, device, "targets")
    rows, items = gather_pairs(own, counts, group, device)
    borders = torch.arange(len(everybody) + 1, device=device)
    indptr = torch.searchsorted(rows, borders)

    here = (items >= first_item) & (items < last_item)
    held = torch.searchsorted(rows[here], borders), items[here] - first_item
    known = _ops.target_scores(everybody, i, *held, normalize)
    scores = torch.zeros(items.numel(), dtype=known.dtype, device=device)
    scores[here] = known
    dist.all_reduce(scores, group=group)  # all but one are zero

    pairs = gather_pairs(None if exclude is None else csr_pair(exclude, device), counts, group, device)
    left_out = csr_of(of_part(pairs, first_item, last_item), len(everybody), len(i))
    before = _ops.ranks(
        everybody, i, indptr, items, *left_out, normalize, target_scores=scores, first_item=first_item
    )
    before -= 1
    dist.all_reduce(before, group=group)
    start = int(indptr[sum(counts[:me])])
    mine: Tensor = before[start : start + own[1].numel()] + 1
    return mine


def _order(scores: Tensor, ids: Tensor) -> Tensor:
    """Columns of each row, best first: score descending, NaN after every number, id ascending, and
    what is no item last."""
    by_id = ids.sort(dim=1, stable=True)[1]
    value = scores.gather(1, by_id).nan_to_num(nan=-torch.inf)
    by_score = by_id.gather(1, value.sort(dim=1, descending=True, stable=True)[1])
    late = scores.isnan() + 2 * (ids < 0).int()
    return by_score.gather(1, late.gather(1, by_score).sort(dim=1, stable=True)[1])
