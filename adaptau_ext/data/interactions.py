"""The one form of data that training and evaluation read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
import torch
from torch import Tensor


class DataError(ValueError):
    """Data that cannot be used as it is; the message says where and what to do."""


ColdUsers = Literal["error", "drop", "keep"]
Duplicates = Literal["error", "merge"]


@dataclass(frozen=True)
class Interactions:
    """Train and test as CSR matrices of ones, `[n_users, n_items]`, indices sorted."""

    name: str
    train: scipy.sparse.csr_array
    test: scipy.sparse.csr_array

    @classmethod
    def from_pairs(
        cls,
        name: str,
        train: tuple[np.ndarray, np.ndarray],  # (users, items)
        test: tuple[np.ndarray, np.ndarray],
        *,
        cold_users: ColdUsers = "error",
        duplicates: Duplicates = "error",
    ) -> Interactions:
        """Checks the pairs and builds the matrices.

        Args:
            cold_users: what to do with users who have test items but no training items: "error",
                "drop" their test items, or "keep" (they are scored by an untrained embedding).
            duplicates: "error", or "merge" repeated pairs into one.
        """
        if train[0].size == 0:
            raise DataError(f"{name}: the training data is empty; nothing can be learned from it")
        n_users = 1 + int(max(train[0].max(), test[0].max(initial=0)))
        n_items = 1 + int(max(train[1].max(), test[1].max(initial=0)))
        shape = (n_users, n_items)
        train_csr = _csr(name, "train", train, shape, duplicates)
        test_csr = _csr(name, "test", test, shape, duplicates)

        cold = (np.diff(train_csr.indptr) == 0) & (np.diff(test_csr.indptr) > 0)
        if cold.any() and cold_users == "error":
            raise DataError(
                f"{name}: {int(cold.sum())} users have test items but no training items, the first is "
                f'user {int(cold.argmax())}; use cold_users="drop" to leave them out of the '
                'evaluation or "keep" to score them untrained'
            )
        if cold_users == "drop":
            test_csr = _without_rows(test_csr, cold)
        both = train_csr.multiply(test_csr)
        if both.nnz:
            user, item = (ids[0] for ids in both.nonzero())
            raise DataError(
                f"{name}: {both.nnz} pairs are in train and in test, the first is user {user}, item "
                f"{item}; training items are never recommended, so remove them from one of the two"
            )
        return cls(name, train_csr, test_csr)

    @property
    def n_users(self) -> int:
        """One more than the largest user id of either split."""
        return int(self.train.shape[0])

    @property
    def n_items(self) -> int:
        """One more than the largest item id of either split."""
        return int(self.train.shape[1])

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The training pairs as (users, items), `[nnz]` int64 each, user by user."""
        users = np.repeat(np.arange(self.n_users), np.diff(self.train.indptr))
        return torch.from_numpy(users), torch.from_numpy(self.train.indices.astype(np.int64))

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.name}: {self.n_users:,} users, {self.n_items:,} items, "
            f"{self.train.nnz:,} train and {self.test.nnz:,} test interactions"
        )


def _csr(
    name: str,
    split: str,
    pairs: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
    duplicates: Duplicates,
) -> scipy.sparse.csr_array:
    users, items = pairs
    counts = scipy.sparse.coo_array((np.ones(users.size, np.int32), (users, items)), shape=shape)
    csr = counts.tocsr()  # sums duplicates
    csr.sort_indices()
    if csr.nnz != users.size and duplicates == "error":
        first = int((csr.data > 1).argmax())
        user = int(np.searchsorted(csr.indptr, first, side="right") - 1)
        raise DataError(
            f"{name}: {users.size - csr.nnz} duplicate pairs in {split}, the first is user {user}, "
            f'item {csr.indices[first]}; use duplicates="merge" to count each pair once'
        )
    csr.data[:] = 1
    return csr


def _without_rows(csr: scipy.sparse.csr_array, rows: np.ndarray) -> scipy.sparse.csr_array:
    kept = csr.copy()
    kept.data[np.repeat(rows, np.diff(csr.indptr))] = 0
    kept.eliminate_zeros()
    return kept
