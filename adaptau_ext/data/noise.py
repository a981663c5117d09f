"""Interactions that never were: how robust is a model to false positives?"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import scipy.sparse

from adaptau_ext.data.interactions import Interactions


def add_noise(
    data: Interactions,
    ratio: float,
    *,
    by: Literal["activity", "user"] = "activity",
    seed: int = 0,
) -> Interactions:
    """Adds pairs drawn uniformly from those in no split to train.

    Args:
        ratio: false interactions, as a share of the training interactions.
        by: "activity" gives each user `ratio` times its own number of interactions, "user" everyone who
            has any the same number; each rounded at random so that the mean is it.
    """
    if ratio < 0:
        raise ValueError(f"ratio must be >= 0, got {ratio}")
    if by not in ("activity", "user"):
        raise ValueError(f'by must be "activity" or "user", got {by!r}')
    generator = np.random.default_rng(seed)
    known = (data.seen + data.test).tocsr()
    degree = np.diff(data.train.indptr)
    active = degree > 0
    share = degree * ratio if by == "activity" else active * (ratio * degree[active].mean())
    count = np.floor(share + generator.random(degree.size)).astype(np.int64)
    count = np.minimum(count, data.n_items - np.diff(known.indptr))
    keys = _keys(known, data.n_items)
    users = np.repeat(np.arange(data.n_users), count)
    added = np.empty(0, np.int64)
    while users.size:  # those drawn twice, or known, are drawn again
        drawn = users * data.n_items + generator.integers(data.n_items, size=users.size)
        _, first = np.unique(drawn, return_index=True)
        fresh = np.zeros(users.size, bool)
        fresh[first] = ~np.isin(drawn[first], keys, assume_unique=True)
        added = np.concatenate([added, drawn[fresh]])
        keys = np.union1d(keys, drawn[fresh])
        users = users[~fresh]
    pairs = np.divmod(added, data.n_items)
    noise = scipy.sparse.csr_array(
        (np.ones(added.size, data.train.dtype), pairs), shape=data.train.shape
    )
    train = (data.train + noise).tocsr()
    train.sort_indices()
    return replace(data, train=train)


def _keys(csr: scipy.sparse.csr_array, n_items: int) -> np.ndarray:
    users = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
    return np.unique(users * n_items + csr.indices.astype(np.int64))
