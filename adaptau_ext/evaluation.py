"""Full-ranking evaluation that streams over users: score, mask, select, count, forget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from adaptau_ext.index import ItemIndex
from adaptau_ext.ops import Normalize

_USERS_A_CHUNK = 4096


def evaluate(
    user_embeddings: Tensor,
    item_embeddings: Tensor,
    held_out: scipy.sparse.csr_array,
    *,
    exclude: scipy.sparse.csr_array | None = None,
    ks: Sequence[int] = (20,),
    normalize: Normalize = "none",
) -> dict[str, float]:
    """Recall, NDCG and precision at each k, averaged over users with held-out items.

    ::

        recall@k    = hits / |held out|
        precision@k = hits / k
        ndcg@k      = sum over hits of 1 / log2(rank + 1), over the same sum for min(k, |held out|) hits
                      at the top

    All items compete but those in `exclude` (training items). Memory does not grow with users x items.

    Args:
        user_embeddings: `[n_users, d]`; item_embeddings: `[n_items, d]`.
        held_out, exclude: `[n_users, n_items]` CSR.
        ks: cut-offs, each >= 1. A user with fewer than k candidates is given all of them.
        normalize: "both" for cosine scores.

    Returns:
        {"recall@20": ..., "ndcg@20": ..., "precision@20": ..., ...}

    Raises:
        ValueError: for no cut-off, a cut-off below 1, or no held-out item at all.
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"ks must be cut-offs >= 1, got {list(ks)}")
    if held_out.nnz == 0:
        raise ValueError("held_out must hold at least one item, got none")
    n_items = item_embeddings.shape[0]
    discount = 1 / torch.log2(torch.arange(2, max(ks) + 2, dtype=torch.float64))
    ideal = torch.cat([torch.zeros(1, dtype=torch.float64), discount.cumsum(0)])
    totals = {f"{name}@{k}": 0.0 for k in ks for name in ("recall", "ndcg", "precision")}
    n_users = 0
    index = ItemIndex(item_embeddings, normalize=normalize)
    for users, k in _chunks(held_out, exclude, n_items, max(ks)):
        ids = index.topk(
            user_embeddings[torch.from_numpy(users)],
            k,
            exclude=None if exclude is None else exclude[users],
        )[1].cpu()
        hits = _hits(held_out[users], ids, n_items)  # [users, k]
        size = torch.from_numpy(np.diff(held_out.indptr)[users])
        for cut in ks:
            found = hits[:, :cut].double()
            gain = (found * discount[: found.shape[1]]).sum(1)
            totals[f"recall@{cut}"] += float((found.sum(1) / size).sum())
            totals[f"precision@{cut}"] += float((found.sum(1) / cut).sum())
            totals[f"ndcg@{cut}"] += float((gain / ideal[size.clamp(max=cut)]).sum())
        n_users += users.size
    return {name: total / n_users for name, total in totals.items()}


def _chunks(
    held_out: scipy.sparse.csr_array,
    exclude: scipy.sparse.csr_array | None,
    n_items: int,
    k: int,
) -> Iterator[tuple[np.ndarray, int]]:
    """Users with held-out items, in chunks that have k candidates each, or else all they have."""
    users = np.diff(held_out.indptr).nonzero()[0]
    left = np.full(users.size, n_items)
    if exclude is not None:
        left = n_items - np.diff(exclude.indptr)[users]
    enough = users[left >= k]
    for start in range(0, enough.size, _USERS_A_CHUNK):
        yield enough[start : start + _USERS_A_CHUNK], k
    for count in np.unique(left[(left < k) & (left > 0)]):
        yield users[left == count], int(count)


def _hits(held_out: scipy.sparse.csr_array, ids: Tensor, n_items: int) -> Tensor:
    """Which of each row's `[rows, k]` ids are held out; rows and columns become one sorted key."""
    rows = np.repeat(np.arange(held_out.shape[0]), np.diff(held_out.indptr))
    keys = torch.from_numpy(rows * n_items + held_out.indices)
    wanted = torch.arange(ids.shape[0])[:, None] * n_items + ids
    place = torch.searchsorted(keys, wanted).clamp(max=keys.numel() - 1)
    return keys[place] == wanted
