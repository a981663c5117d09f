"""Which interactions are trained on, which are held out."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse

from adaptau_ext.data.interactions import Interactions, sample_of_rows
from adaptau_ext.data.log import Log
from adaptau_ext.errors import DataError

Split = Literal["random", "leave_one_out", "temporal"]


def split_log(
    log: Log,
    split: Split = "random",
    *,
    test_fraction: float = 0.2,
    valid_fraction: float = 0.1,
    seed: int = 0,
) -> Interactions:
    """Train, valid (a part of train) and test of a log, every pair once.

    ::

        random         test_fraction of every user's items are test, valid_fraction of the others valid
        leave_one_out  every user's last item is test, the one before it valid; by chance without times
        temporal       the last test_fraction of all interactions are test, the last valid_fraction of
                       the others valid; equal times stay together, and users and items that are not
                       trained on are left out of test, and stay in train instead of being valid

    Whoever has a single item trains on it, and has no test items.

    Raises:
        ValueError: for fractions outside (0, 1).
        DataError: for "temporal" without times, and where no test item is left.
    """
    for name, fraction in (("test_fraction", test_fraction), ("valid_fraction", valid_fraction)):
        if not 0 < fraction < 1:
            raise ValueError(f"{name} must be in (0, 1), got {fraction}")
    log = log.merged()
    shape = len(log.user_ids), len(log.item_ids)
    notes = log.notes
    if split == "random":
        whole = _csr(log, np.ones(len(log), bool), shape)
        test = sample_of_rows(whole, test_fraction, seed)
        train = _difference(whole, test)
        valid = sample_of_rows(train, valid_fraction, seed + 1)
    elif split == "leave_one_out":
        if log.times is None:
            notes = (*notes, "leave_one_out by chance: there are no times")
        last = _from_last(log, seed)
        count = np.bincount(log.users, minlength=shape[0])[log.users]
        in_test = (last == 0) & (count > 1)
        train, test = _csr(log, ~in_test, shape), _csr(log, in_test, shape)
        valid = _csr(log, (last == 1) & (count > 2), shape)
    elif split == "temporal":
        if log.times is None:
            raise DataError(f"{log.name}: split=temporal needs a column of times: give time_column")
        in_test = _late(log.times, np.ones(len(log), bool), test_fraction)
        in_valid = _late(log.times, ~in_test, valid_fraction)
        train = _csr(log, ~in_test, shape)
        known = _known(log, in_test, ~in_test)
        test = _csr(log, known, shape)
        valid = _csr(log, _known(log, in_valid, ~in_test & ~in_valid), shape)
        if left_out := int(in_test.sum() - known.sum()):
            notes = (
                *notes,
                f"{left_out:,} test interactions of users or items that came later left out",
            )
    else:
        raise DataError(f'split must be "random", "leave_one_out" or "temporal", got {split!r}')
    if test.nnz == 0:
        raise DataError(f"{log.name}: split={split} leaves no test item for any user")
    ids = log.user_ids, log.item_ids
    cut = None if split == "leave_one_out" else valid_fraction
    return Interactions(log.name, train, test, valid, cut, *ids, notes)


def _csr(log: Log, which: np.ndarray, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    pairs = (log.users[which], log.items[which])
    csr = scipy.sparse.csr_array((np.ones(pairs[0].size, np.int32), pairs), shape=shape)
    csr.sort_indices()
    return csr


def _difference(whole: scipy.sparse.csr_array, part: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    rest: scipy.sparse.csr_array = (whole - part).tocsr()
    rest.eliminate_zeros()
    rest.sort_indices()
    return rest


def _from_last(log: Log, seed: int) -> np.ndarray:
    """How many of its user's interactions are later than each: 0 for the last."""
    chance = np.empty(len(log))
    by_pair = np.lexsort((log.items, log.users))  # so that the log's order does not matter
    chance[by_pair] = np.random.default_rng(seed).random(len(log))
    order = np.lexsort((chance, chance if log.times is None else log.times, log.users))
    end = np.bincount(log.users).cumsum()[log.users[order]]
    from_last = np.empty(len(log), np.int64)
    from_last[order] = end - 1 - np.arange(len(log))
    return from_last


def _late(times: np.ndarray, among: np.ndarray, fraction: float) -> np.ndarray:
    """The last `fraction` of some, or a little less: equal times stay together."""
    ordered = np.sort(times[among])
    cut = ordered[min(max(int(np.ceil(ordered.size * (1 - fraction))), 1), ordered.size) - 1]
    late: np.ndarray = among & (times > cut)
    return late


def _known(log: Log, held_out: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Those held out whose user and item are trained on."""
    users = np.bincount(log.users[trained], minlength=len(log.user_ids)) > 0
    items = np.bincount(log.items[trained], minlength=len(log.item_ids)) > 0
    known: np.ndarray = held_out & users[log.users] & items[log.items]
    return known
