"""Top-k where some users have fewer than k candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptau_ext.index import ItemIndex


def padded_topk(
    index: ItemIndex, u: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """`index.topk`, with scores of -inf and ids of -1 where a user has no candidates left. Waits for
    the device.

    Args:
        exclude: (indptr, indices) or None.
    """
    left = torch.full((len(u),), len(index), device=u.device)
    if exclude is not None:
        left -= exclude[0].diff()
    counts = left.clamp(max=k)
    scores = torch.full((len(u), k), -torch.inf, dtype=index.rows.dtype, device=u.device)
    if scores.dtype != torch.float64:
        scores = scores.float()
    ids = torch.full((len(u), k), -1, dtype=torch.int64, device=u.device)
    for count in counts.unique().tolist():  # nearly always k alone
        if count <= 0:
            continue
        if count == k and bool((counts == k).all()):
            return index.topk(u, k, exclude=exclude)
        these = (counts == count).nonzero()[:, 0]
        some = None if exclude is None else _rows_of(exclude, these)
        scores[these, :count], ids[these, :count] = index.topk(u[these], count, exclude=some)
    return scores, ids


def _rows_of(csr: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    indptr, indices = csr
    sizes = indptr.diff()[rows]
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    within = torch.arange(int(starts[-1]), device=rows.device) - starts[:-1].repeat_interleave(sizes)
    return starts, indices[indptr[rows].repeat_interleave(sizes) + within]
