"""Full-ranking evaluation that streams over users: score, mask, select, count, forget."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from adaptau_ext.arguments import csr_pair
from adaptau_ext.errors import reading
from adaptau_ext.index import ItemIndex
from adaptau_ext.ops import Normalize
from adaptau_ext.padded import padded_topk

METRICS = ("recall", "ndcg", "precision", "hit", "mrr", "map")
USERS_A_CHUNK = 4096
FLAGS = 1 << 20  # a power of two, far above the held-out items of a chunk


@dataclass(frozen=True)
class UserMetrics:
    """Metrics of every user with held-out items.

    Attributes:
        users: `[n]` ids of those users.
        values: of each metric like "recall@20", `[n]` float64, a user's each.
        held_out: a sum of hashes of the held-out pairs, 64 bits: the same for the same pairs.
    """

    users: np.ndarray
    values: dict[str, np.ndarray]
    held_out: int

    def means(self) -> dict[str, float]:
        """Every metric, averaged over the users."""
        return {name: float(value.mean()) for name, value in self.values.items()}

    def save(self, file: Path | BinaryIO) -> None:
        """Writes a compressed .npz, values as float32."""
        arrays: dict[str, Any] = {name: v.astype(np.float32) for name, v in self.values.items()}
        users, held_out = self.users.astype(np.int32), np.uint64(self.held_out)
        np.savez_compressed(file, users=users, held_out=held_out, **arrays)

    @staticmethod
    def load(file: Path | BinaryIO) -> UserMetrics:
        """Reads what `save` wrote; nothing in it is executed.

        Raises:
            ModelError: if it is something else.
        """
        with reading(f"{file}: these are no users' metrics", "train again"):
            with np.load(file, allow_pickle=False) as arrays:
                if any(array.dtype.kind not in "iuf" for array in arrays.values()):
                    raise ValueError("metrics and users must be real numbers")
                held_out = int(arrays["held_out"])
                values = {
                    name: array.astype(np.float64)
                    for name, array in arrays.items()
                    if name != "held_out"
                }
            users = values.pop("users").astype(np.int64)
            if users.ndim != 1 or any(array.shape != users.shape for array in values.values()):
                raise ValueError("a metric has not one value for each user")
        return UserMetrics(users, values, held_out)


@dataclass(frozen=True)
class Evaluation(UserMetrics):
    """What the first k items of every user with held-out items are worth.

    Attributes:
        recommended: of each k, `[n_items]`: how many users have the item among their first k.
        found: of each k, `[n_items]` float64: the item's share in recall@k, so that the sum over items,
            divided by n, is recall@k.
    """

    recommended: dict[int, np.ndarray] = field(repr=False)
    found: dict[int, np.ndarray] = field(repr=False)

    @classmethod
    def joined(cls, parts: Sequence[Evaluation]) -> Evaluation:
        """Of parts of the users, the ids of each part above those of the one before."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        return cls(
            np.concatenate([part.users for part in parts]),
            {name: np.concatenate([part.values[name] for part in parts]) for name in first.values},
            sum(part.held_out for part in parts) % 2**64,
            {k: np.sum([part.recommended[k] for part in parts], axis=0) for k in first.recommended},
            {k: np.sum([part.found[k] for part in parts], axis=0) for k in first.found},
        )


def evaluate(
    user_embeddings: Tensor,
    item_embeddings: Tensor | ItemIndex,
    held_out: scipy.sparse.csr_array,
    *,
    exclude: scipy.sparse.csr_array | None = None,
    ks: Sequence[int] = (20,),
    normalize: Normalize = "none",
) -> dict[str, float]:
    """Means over users of every metric of `evaluate_users`: {"recall@20": ..., "ndcg@20": ..., ...}."""
    return evaluate_users(
        user_embeddings, item_embeddings, held_out, exclude=exclude, ks=ks, normalize=normalize
    ).means()


def evaluate_users(
    user_embeddings: Tensor,
    item_embeddings: Tensor | ItemIndex,
    held_out: scipy.sparse.csr_array,
    *,
    exclude: scipy.sparse.csr_array | None = None,
    ks: Sequence[int] = (20,),
    normalize: Normalize = "none",
) -> Evaluation:
    """Ranking metrics at each k of all users with held-out items.

    ::

        recall@k    = hits / |held out|
        precision@k = hits / k
        ndcg@k      = sum over hits of 1 / log2(rank + 1), over the same sum for min(k, |held out|) hits
                      at the top
        hit@k       = 1 if there is a hit, otherwise 0
        mrr@k       = 1 / rank of the first hit, 0 without one
        map@k       = sum over hits of precision at their rank, over min(k, |held out|)

    All items compete but those in `exclude` (training items). Memory does not grow with users x items.

    Args:
        user_embeddings: `[n_users, d]`; item_embeddings: `[n_items, d]`, or an index of them, which may
            lie on disk.
        held_out, exclude: `[n_users, n_items]` sparse matrices; what is not zero is held out, or
            excluded.
        ks: cut-offs, each >= 1. A user with fewer than k candidates is given all of them.
        normalize: "both" for cosine scores. An index has its own.

    Raises:
        ValueError: for no cut-off, a cut-off below 1, matrices of another shape, no held-out item at
            all, or an index with another `normalize`.

    Warns:
        UserWarning: if all candidates of a user score NaN, as after a training that diverged: they are
            ranked by id then, which the metrics do not show.
    """
    if not isinstance(item_embeddings, ItemIndex):
        index = ItemIndex(item_embeddings, normalize=normalize)
    elif normalize in ("none", item_embeddings.normalize):
        index = item_embeddings
    else:
        raise ValueError(
            f'normalize is that of the index, "{item_embeddings.normalize}", got "{normalize}"'
        )

    shape = len(user_embeddings), len(index)
    held_out = _canonical("held_out", held_out, shape)
    exclude = None if exclude is None else _canonical("exclude", exclude, shape)

    nan = 0  # users whose best score is NaN, which comes after every number

    def search(users: np.ndarray, k: int) -> np.ndarray:
        nonlocal nan
        seen = None if exclude is None else csr_pair(exclude[users], user_embeddings.device)
        scores, ids = padded_topk(index, user_embeddings[torch.from_numpy(users)], k, seen)
        nan += int(scores[:, 0].isnan().sum())
        return np.asarray(ids.cpu())

    users = np.diff(held_out.indptr).nonzero()[0]
    chunks = np.split(users, range(USERS_A_CHUNK, users.size, USERS_A_CHUNK))
    evaluation = evaluate_found(search, chunks, held_out, ks)
    if nan:
        warnings.warn(
            f"every candidate of {nan:,} of {users.size:,} users scores NaN: they are ranked by id",
            stacklevel=2,
        )
    return evaluation


def _canonical(name: str, sparse: Any, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """CSR with ascending indices, each pair once and none of zeros; the matrix itself if it is so."""
    if not scipy.sparse.issparse(sparse):
        raise ValueError(f"{name} must be a SciPy sparse matrix, got {type(sparse).__name__}")
    matrix: Any = sparse
    if matrix.shape != shape:
        raise ValueError(f"{name} must be {list(shape)}, as the embeddings, got {list(matrix.shape)}")
    csr: scipy.sparse.csr_array = scipy.sparse.csr_array(matrix)
    if not csr.has_canonical_format or not csr.data.all():
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr


def _hashed(users: np.ndarray, items: np.ndarray) -> int:
    """A sum of hashes of pairs, by SplitMix64's finaliser (Steele et al., OOPSLA 2014)."""
    x = (users.astype(np.uint64) << np.uint64(32)) + items.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return int((x ^ (x >> np.uint64(31))).sum())


def evaluate_found(
    search: Callable[[np.ndarray, int], np.ndarray],
    chunks: Sequence[np.ndarray],
    held_out: scipy.sparse.csr_array,
    ks: Sequence[int],
) -> Evaluation:
    """`evaluate_users` of whatever is found.

    Args:
        search: (users `[n]`, k) -> ids `[n, k]` of their best items, best first, -1 where there is
            none.
        chunks: users with held-out items, ascending, in parts.
        held_out: `[n_users, n_items]` CSR, canonical.
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"ks must be cut-offs >= 1, got {list(ks)}")
    if held_out.nnz == 0:
        raise ValueError("held_out must hold at least one item, got none")
    n_items = held_out.shape[1]
    parts: dict[str, list[np.ndarray]] = {f"{name}@{k}": [] for k in ks for name in METRICS}
    recommended = {k: np.zeros(n_items, np.int64) for k in ks}
    found = {k: np.zeros(n_items) for k in ks}
    hashes = 0
    for users in chunks:
        ids = search(users, min(max(ks), n_items))
        rows = held_out[users]
        hashes += _hashed(np.repeat(users, np.diff(rows.indptr)), rows.indices)
        hits = Hits(rows, ids)
        done, shown = 0, np.zeros(n_items + 1, np.int64)
        for cut in sorted(set(ks)):
            for name, value in hits.metrics(cut).items():
                parts[f"{name}@{cut}"].append(value)
            shown += np.bincount(ids[:, done:cut].ravel() + 1, minlength=n_items + 1)
            recommended[cut] += shown[1:]
            done = cut
            here = hits.rank < cut
            found[cut] += np.bincount(
                hits.item[here], weights=1 / hits.size[hits.row[here]], minlength=n_items
            )
    values = {name: np.concatenate(value) for name, value in parts.items()}
    return Evaluation(np.concatenate(chunks), values, hashes % 2**64, recommended, found)


class Hits:
    """The held-out items among users' recommendations, one entry each, by user and rank.

    Args:
        held_out: `[n, n_items]` CSR with at least one item a row; ids: `[n, k]`, best first, -1 where
            there is none.

    Attributes:
        size: `[n]`, held-out items. row, rank, item: of each hit; ranks from 0.
        nth: of each hit, how many hits its user has up to it.
    """

    def __init__(self, held_out: scipy.sparse.csr_array, ids: np.ndarray) -> None:
        self.size = np.diff(held_out.indptr)
        n, n_items = held_out.shape
        held = np.repeat(np.arange(n) * n_items, self.size) + held_out.indices  # ascending
        shown = (np.arange(n)[:, None] * n_items + ids).ravel()
        # Few are hits. What has no flag at its last bits is none; the others are looked up.
        flags = np.zeros(FLAGS, bool)
        flags[held & (FLAGS - 1)] = True
        maybe = np.flatnonzero(flags[shown & (FLAGS - 1)])
        place = np.searchsorted(held, shown[maybe]).clip(max=held.size - 1)
        hit = maybe[(held[place] == shown[maybe]) & (ids.ravel()[maybe] >= 0)]
        self.row, self.rank = np.divmod(hit, ids.shape[1])
        self.item = ids.ravel()[hit]
        first = np.searchsorted(self.row, self.row)  # of the row's hits
        self.nth = np.arange(len(self.row)) - first + 1

    def metrics(self, k: int) -> dict[str, np.ndarray]:
        """Each metric at k, `[n]` float64."""
        here = self.rank < k
        row, rank, nth = self.row[here], self.rank[here], self.nth[here]
        n = len(self.size)

        def total(weights: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(row, weights=weights, minlength=n).astype(np.float64)

        discount = 1 / np.log2(np.arange(2, k + 2))
        ideal = np.concatenate([[0], discount.cumsum()])
        best = np.minimum(self.size, k)
        count, first = total(), nth == 1
        return {
            "recall": count / self.size,
            "precision": count / k,
            "ndcg": total(discount[rank]) / ideal[best],
            "hit": (count > 0).astype(np.float64),
            "mrr": total(first / (rank + 1)),
            "map": total(nth / (rank + 1)) / best,
        }
