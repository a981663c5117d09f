"""A made-up data set with a known structure, for trying the package without any file.

Items have Zipf popularity, users and items belong to planted tastes: a user takes items of their own
tastes far more often than others of the same popularity. The numbers a model reaches on it say that the
software works, nothing about real data.
"""

from __future__ import annotations

import numpy as np

from adaptau_ext.data.interactions import Interactions


def synthetic(
    seed: int = 0,
    *,
    n_users: int = 3000,
    n_items: int = 2000,
    n_tastes: int = 30,
    tastes_a_user: int = 2,
    mean_items: float = 40.0,
    zipf: float = 0.8,
    affinity: float = 3.0,
    test_fraction: float = 0.2,
) -> Interactions:
    """Draws interactions: P(item | user) ~ popularity(item) * exp(affinity * [shared taste]).

    Args:
        n_items: at least 8.
        mean_items: mean interactions a user; log-normal, from 8 to a quarter of the items.
        zipf: popularity of the item of rank r ~ 1 / r^zipf.
        affinity: log-odds of an item of one's own tastes.
        test_fraction: of each user's items, at least one, and not all.
    """
    if n_items < 8:
        raise ValueError(f"n_items must be at least 8, got {n_items}")
    rng = np.random.default_rng(seed)
    popularity = np.log(1 / np.arange(1, n_items + 1) ** zipf)[rng.permutation(n_items)]
    taste_of_item = rng.integers(n_tastes, size=n_items)
    tastes = np.argsort(rng.random((n_users, n_tastes)), axis=1)[:, :tastes_a_user]
    shared = (taste_of_item[None, None, :] == tastes[:, :, None]).any(1)  # [n_users, n_items]
    # Gumbel's trick: the n largest perturbed log-odds are a sample without replacement.
    noisy = popularity + affinity * shared + rng.gumbel(size=(n_users, n_items))
    taken = np.argsort(-noisy, axis=1)
    counts = np.exp(rng.normal(np.log(mean_items) - 0.125, 0.5, n_users)).astype(int)
    counts = counts.clip(8, n_items // 4)

    train: list[np.ndarray] = []
    test: list[np.ndarray] = []
    for user, count in enumerate(counts):
        items = rng.permutation(taken[user, :count])
        held_out = min(max(1, round(test_fraction * count)), count - 1)
        test.append(np.stack([np.full(held_out, user), items[:held_out]]))
        train.append(np.stack([np.full(count - held_out, user), items[held_out:]]))
    train_pairs, test_pairs = np.concatenate(train, axis=1), np.concatenate(test, axis=1)
    return Interactions.from_pairs(
        "synthetic", (train_pairs[0], train_pairs[1]), (test_pairs[0], test_pairs[1])
    )
