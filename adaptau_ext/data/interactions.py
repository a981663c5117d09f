"""The one form of data that training and evaluation read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import scipy.sparse
import torch
from torch import Tensor

from adaptau_ext.errors import DataError

ColdUsers = Literal["error", "drop", "keep"]
Duplicates = Literal["error", "merge"]
_Ids = tuple[pa.Array | None, pa.Array | None]  # of users, of items


@dataclass(frozen=True)
class Interactions:
    """Train and test as CSR matrices of ones, `[n_users, n_items]`, indices sorted.

    `valid`, if there is one, is a part of `train`; `without_valid()` takes it out, to select on.

    Attributes:
        valid_fraction: of train, that `valid` was cut as; None: `valid` was not cut so.
        user_ids, item_ids: what rows and columns are called outside; None: by their numbers.
        notes: what was done to the data, for people.
    """

    name: str
    train: scipy.sparse.csr_array
    test: scipy.sparse.csr_array
    valid: scipy.sparse.csr_array | None = None
    valid_fraction: float | None = None
    user_ids: pa.Array | None = None
    item_ids: pa.Array | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def from_pairs(
        cls,
        name: str,
        train: tuple[np.ndarray, np.ndarray],  # (users, items)
        test: tuple[np.ndarray, np.ndarray],
        *,
        valid: tuple[np.ndarray, np.ndarray] | None = None,
        n_users: int = 0,
        n_items: int = 0,
        user_ids: pa.Array | None = None,
        item_ids: pa.Array | None = None,
        cold_users: ColdUsers = "error",
        duplicates: Duplicates = "error",
    ) -> Interactions:
        """Checks the pairs and builds the matrices.

        Args:
            valid: a part of train.
            n_users, n_items: at least so many, where some have no pair at all.
            user_ids, item_ids: as the attributes.
            cold_users: what to do with users who have test items but no training items: "error",
                "drop" their test items, or "keep" (they are scored by an untrained embedding).
            duplicates: "error", or "merge" repeated pairs into one.
        """
        if train[0].size == 0:
            raise DataError(f"{name}: the training data is empty; nothing can be learned from it")
        parts = [train, test] if valid is None else [train, test, valid]
        shape = (
            max(n_users, *(1 + int(users.max(initial=0)) for users, _ in parts)),
            max(n_items, *(1 + int(items.max(initial=0)) for _, items in parts)),
        )
        ids = user_ids, item_ids
        train_csr = _csr(name, "train", train, shape, duplicates, ids)
        test_csr = _csr(name, "test", test, shape, duplicates, ids)

        cold = (np.diff(train_csr.indptr) == 0) & (np.diff(test_csr.indptr) > 0)
        if cold.any() and cold_users == "error":
            raise DataError(
                f"{name}: {int(cold.sum())} users have test items but no training items, the first is "
                f"user {_called(user_ids, cold.argmax())}; "
                'use cold_users="drop" to leave them out of the evaluation or "keep" to score them '
                "untrained"
            )
        if cold_users == "drop":
            test_csr = without_rows(test_csr, cold)
        both = train_csr.multiply(test_csr)
        if both.nnz:
            raise DataError(
                f"{name}: {both.nnz} pairs are in train and in test, the first is {_first(both, ids)}; "
                "training items are never recommended, so remove them from one of the two"
            )
        if valid is None:
            return cls(name, train_csr, test_csr, user_ids=user_ids, item_ids=item_ids)
        valid_csr = _csr(name, "valid", valid, shape, duplicates, ids)
        outside = valid_csr - valid_csr.multiply(train_csr)
        outside.eliminate_zeros()
        if outside.nnz:
            raise DataError(
                f"{name}: {outside.nnz} pairs of valid are not in train, the first is "
                f"{_first(outside, ids)}; valid must be a part of train"
            )
        return cls(name, train_csr, test_csr, valid_csr, user_ids=user_ids, item_ids=item_ids)

    def without_valid(self) -> Interactions:
        """Train without valid, which is there to choose hyper-parameters and epochs on.

        Users whose training items are all in valid keep them in train, and have no valid items. Data
        that it has been taken out of already comes back as it is.
        """
        if self.valid is None:
            raise DataError(
                f"{self.name}: there is no validation split; cut one with cut_valid(), or "
                "valid_fraction=0.1"
            )
        inside = self.valid.multiply(self.train).tocsr()
        if inside.nnz == 0:
            return self
        lost = np.diff(inside.indptr) >= np.diff(self.train.indptr)
        lost &= np.diff(inside.indptr) > 0
        valid = self.valid
        if lost.any():
            valid, inside = without_rows(valid, lost), without_rows(inside, lost)
        train = (self.train - inside).tocsr()
        train.eliminate_zeros()
        train.sort_indices()
        return replace(self, train=train, valid=valid)

    def cut_valid(self, fraction: float, seed: int = 0) -> Interactions:
        """The same data with a random part of train as `valid`; every user keeps an item to train on.

        Args:
            fraction: of each user's training items, in (0, 1), rounded at random, right on average.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must be in (0, 1), got {fraction}")
        sample = sample_of_rows(self.train, fraction, seed)
        return replace(self, valid=sample, valid_fraction=fraction)

    @property
    def n_users(self) -> int:
        """Users, those without a pair included."""
        return int(self.train.shape[0])

    @property
    def n_items(self) -> int:
        """Items, those without a pair included."""
        return int(self.train.shape[1])

    @property
    def seen(self) -> scipy.sparse.csr_array:
        """Train and valid, whether or not valid has been taken out of train."""
        if self.valid is None:
            return self.train
        seen = self.train.maximum(self.valid).tocsr()
        seen.sort_indices()
        return seen

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The training pairs as (users, items), `[nnz]` int64 each, user by user."""
        users = np.repeat(np.arange(self.n_users), np.diff(self.train.indptr))
        return torch.from_numpy(users), torch.from_numpy(self.train.indices.astype(np.int64))

    def digest(self) -> str:
        """SHA-256 of every pair of train, valid and test, and of ids: the same for the same data."""
        found = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            found.update(b"none" if part is None else str(part.shape).encode())
            if part is not None:
                found.update(part.indptr.astype(np.int64).data)
                found.update(part.indices.astype(np.int64).data)
        for ids in (self.user_ids, self.item_ids):
            found.update(b"none" if ids is None else pa.record_batch({"id": ids}).serialize())
        return found.hexdigest()

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.name}: {self.n_users:,} users, {self.n_items:,} items, "
            f"{self.train.nnz:,} train and {self.test.nnz:,} test interactions"
        )


def sample_of_rows(csr: scipy.sparse.csr_array, fraction: float, seed: int) -> scipy.sparse.csr_array:
    """A random part of every row's entries, rounded at random; at least one entry is left out of it."""
    generator = np.random.default_rng(seed)
    degree = np.diff(csr.indptr)
    count = np.floor(degree * fraction + generator.random(degree.size)).astype(np.int64)
    count = np.minimum(count, np.maximum(degree - 1, 0))
    rows = np.repeat(np.arange(csr.shape[0]), degree)
    order = np.argsort(rows + generator.random(rows.size))  # each row's entries, shuffled
    place = np.arange(rows.size) - csr.indptr[rows]
    chosen = np.sort(order[place < count[rows]])
    sample = scipy.sparse.csr_array(
        (np.ones(chosen.size, csr.dtype), (rows[chosen], csr.indices[chosen])), shape=csr.shape
    )
    sample.sort_indices()
    return sample


def _csr(
    name: str,
    split: str,
    pairs: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
    duplicates: Duplicates,
    ids: _Ids,
) -> scipy.sparse.csr_array:
    users, items = pairs
    counts = scipy.sparse.coo_array((np.ones(users.size, np.int32), (users, items)), shape=shape)
    csr = counts.tocsr()  # sums duplicates
    csr.sort_indices()
    if csr.nnz != users.size and duplicates == "error":
        raise DataError(
            f"{name}: {users.size - csr.nnz} duplicate pairs in {split}, the first is "
            f'{_first(csr > 1, ids)}; use duplicates="merge" to count each pair once'
        )
    csr.data[:] = 1
    return csr


def _first(pairs: scipy.sparse.csr_array, ids: _Ids) -> str:
    """The first pair of a matrix, as it is called outside."""
    user, item = (_called(names, places[0]) for names, places in zip(ids, pairs.nonzero(), strict=True))
    return f"user {user}, item {item}"


def _called(ids: pa.Array | None, place: int) -> object:
    return place if ids is None else ids[int(place)].as_py()


def without_rows(csr: scipy.sparse.csr_array, rows: np.ndarray) -> scipy.sparse.csr_array:
    """The matrix with the rows of a mask empty."""
    kept = csr.copy()
    kept.data[np.repeat(rows, np.diff(csr.indptr))] = 0
    kept.eliminate_zeros()
    return kept
