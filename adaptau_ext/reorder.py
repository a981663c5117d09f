"""An order of a graph's nodes in which those close to each other come together."""

from __future__ import annotations

import numpy as np
import scipy.sparse

# Nodes of a side that are not split further: 64 floats each are a megabyte, which fits the second-level
# cache of most cores, and there the order within does not matter.
LEAF = 4096
# Of the power iteration: the split need not be the best one.
ITERATIONS = 10


def locality_order(
    indptr: np.ndarray, indices: np.ndarray, n_items: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Users and items, ids in int32, by recursive spectral bisection; None where all is one leaf.

    Both sides are cut in halves at the median of the second singular vectors of D ** -0.5 R D ** -0.5,
    and so on within the halves. A user's items, and an item's users, then lie near each other as far as
    the data lets them, so that rows which are gathered for one node are in a cache for the next.

    Source: Partitioning sparse matrices with eigenvectors of graphs (Pothen, Simon & Liou, 1990);
    for bipartite graphs Dhillon (KDD 2001).
    """
    rng = np.random.default_rng(0)
    n_users = len(indptr) - 1
    if max(n_users, n_items) <= LEAF:
        return None
    ones = np.ones(len(indices), np.float32)
    whole = scipy.sparse.csr_array((ones, indices, indptr), shape=(n_users, n_items))
    parts = [(whole, np.arange(n_users, dtype=np.int32), np.arange(n_items, dtype=np.int32))]
    del whole  # the first part is gone when its halves are there
    order: list[tuple[np.ndarray, np.ndarray]] = []
    while parts:
        part, users, items = parts.pop()
        if max(part.shape) <= LEAF or part.nnz == 0:
            order.append((users, items))
            continue
        by_user, by_item = (np.argsort(x, kind="stable") for x in _second_vectors(part, rng))
        halves = zip(np.array_split(by_user, 2), np.array_split(by_item, 2), strict=True)
        for u, i in reversed([*halves]):  # the first half is the next that is popped
            parts.append((part[u][:, i], users[u], items[i]))
    users, items = (np.concatenate(side) for side in zip(*order, strict=True))
    return users, items


def _second_vectors(
    part: scipy.sparse.csr_array, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """About: of users and items, divided by the roots of the degrees."""
    degrees = np.diff(part.indptr), np.bincount(part.indices, minlength=part.shape[1])
    roots = [np.sqrt(np.maximum(degree, 1)).astype(np.float32) for degree in degrees]
    first = roots[1] / np.linalg.norm(roots[1])  # singular vector of the items, whose value is 1
    v = rng.standard_normal(part.shape[1], np.float32)
    for _ in range(ITERATIONS):
        v -= first * (first @ v)
        v /= np.linalg.norm(v) or 1
        u = (part @ (v / roots[1])) / roots[0]
        v = (part.T @ (u / roots[0])) / roots[1]
    return u / roots[0], v / roots[1]
