"""Beyond accuracy: what share popular items have in hits and recommendations."""

from __future__ import annotations

from typing import Literal

import numpy as np

from adaptau_ext.evaluation.ranking import Evaluation

N_GROUPS = 10


def popularity_groups(
    popularity: np.ndarray,
    n_groups: int = N_GROUPS,
    *,
    equal: Literal["interactions", "items"] = "interactions",
) -> np.ndarray:
    """Items in groups from the least popular, 0, to the most popular.

    Args:
        popularity: `[n_items]`, training interactions of each item.
        equal: what the groups have the same number of, as nearly as can be: "interactions" (many
            unpopular items against few popular ones), or "items".

    Returns:
        `[n_items]` int64 in [0, n_groups). An item that has several groups' worth of interactions
        leaves some of them empty.

    Source: the groups by interactions are those of SGL (Wu et al., SIGIR 2021), section 4.3.
    """
    if n_groups < 1:
        raise ValueError(f"n_groups must be >= 1, got {n_groups}")
    if equal not in ("interactions", "items"):
        raise ValueError(f'equal must be "interactions" or "items", got {equal!r}')
    order = np.argsort(popularity, kind="stable")
    weight = popularity[order].astype(np.float64) if equal == "interactions" else np.ones(order.size)
    before = weight.cumsum() - weight / 2  # an item belongs where its middle lies
    groups = np.empty(order.size, np.int64)
    groups[order] = np.minimum(before * n_groups // max(weight.sum(), 1), n_groups - 1)
    return groups


def group_recall(
    evaluation: Evaluation, groups: np.ndarray, k: int, n_groups: int = N_GROUPS
) -> np.ndarray:
    """Recall@k by group of items, `[n_groups]`: the sum over groups is recall@k."""
    found = np.bincount(groups, weights=evaluation.found[k], minlength=n_groups)
    return found / len(evaluation.users)


def beyond_accuracy(evaluation: Evaluation, popularity: np.ndarray, k: int) -> dict[str, float]:
    """How various the first k recommendations are, over all users.

    ::

        coverage@k   = share of the items that anybody is recommended
        gini@k       = Gini coefficient of how often items are recommended: 0 all alike, 1 one item only
        popularity@k = mean training interactions of what is recommended
        novelty@k    = mean of -log2(interactions of the item / all interactions), unseen items as one

    Args:
        popularity: `[n_items]`, training interactions of each item.
    """
    count = evaluation.recommended[k].astype(np.float64)
    total, n = count.sum(), count.size
    ordered = np.sort(count)
    gini = (2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)
    information = -np.log2(np.maximum(popularity, 1) / popularity.sum())
    return {
        f"coverage@{k}": float((count > 0).mean()),
        f"gini@{k}": float(gini),
        f"popularity@{k}": float(count @ popularity / total),
        f"novelty@{k}": float(count @ information / total),
    }
