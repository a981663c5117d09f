"""Is one run better than another, or is it chance? Paired over users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from adaptau_ext.evaluation.ranking import UserMetrics


class Comparison(NamedTuple):
    """Of a metric between two runs: means, and two-sided p values of the paired tests."""

    metric: str
    first: float
    second: float
    t_p: float
    wilcoxon_p: float


def compare(first: UserMetrics, second: UserMetrics) -> list[Comparison]:
    """Paired t test and Wilcoxon's signed-rank test of every metric that both have.

    Ties count half to each side in Wilcoxon's test (zero_method="zsplit"), because most users have the
    same hits under both. Equal values of all users give p = 1. Two values are equal if they are less
    than half of 1e-6 apart: files keep them as float32.

    Raises:
        ValueError: if the users or their held-out items are not the same, or there are fewer than two
            users.
    """
    import scipy.stats  # here: it takes longer to import than the whole package

    if first.held_out != second.held_out or not np.array_equal(first.users, second.users):
        raise ValueError("first and second must be of the same users and held-out items")
    if len(first.users) < 2:
        raise ValueError(f"a paired test needs at least two users, got {len(first.users)}")
    rows = []
    for name in first.values:
        if name not in second.values:
            continue
        a, b = first.values[name], second.values[name]
        difference = np.round(a - b, 6)
        t_p = wilcoxon_p = 1.0
        if difference.any():
            t_p = float(scipy.stats.ttest_1samp(difference, 0).pvalue)
            wilcoxon_p = float(scipy.stats.wilcoxon(difference, zero_method="zsplit").pvalue)
        rows.append(Comparison(name, float(a.mean()), float(b.mean()), t_p, wilcoxon_p))
    return rows
