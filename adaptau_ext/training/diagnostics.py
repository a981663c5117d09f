"""What the paper looks at besides accuracy, after every epoch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adaptau_ext.evaluation import Evaluation, group_recall
from adaptau_ext.evaluation.popularity import N_GROUPS
from adaptau_ext.ops import Normalize
from adaptau_ext.reference import unit_rows

QUANTILES = tuple(round(0.1 * q, 1) for q in range(11))
_PAIRS = 100_000  # looked at for mean scores


@torch.no_grad()
def diagnose(
    embeddings: tuple[Tensor, Tensor],
    pairs: tuple[Tensor, Tensor],
    popularity: np.ndarray,
    groups: np.ndarray,
    normalize: Normalize,
    inv_tau: Tensor,
    evaluation: Evaluation | None,
    k: int,
) -> dict[str, float | list[float] | None]:
    """Magnitudes, scores, recall by popularity, and temperatures.

    Args:
        embeddings: `[n_users, d]` and `[n_items, d]`; pairs: `[|D|]` users and items of train.
        popularity: `[n_items]`, training interactions; groups: `[n_items]`, of `popularity_groups`.
        normalize: which embeddings are unit vectors in scores.
        inv_tau: `[n_users]`, inverse temperatures.

    Returns:
        item_norm_by_group: mean |i| by popularity group, the least popular first; 0 of an empty one.
        item_norm_popularity: Spearman's correlation of |i| and popularity; None where all of one of
            them are alike.
        positive_score, random_score: mean score of training pairs, and of users with random items.
        recall@k_by_group: shares of the groups in recall@k, whose sum it is; not without an evaluation.
        inv_tau_quantiles: of the users' inverse temperatures, at 0, 0.1, .. 1.
    """
    import scipy.stats  # here: it takes longer to import than the whole package

    u, i = embeddings
    norm = i.norm(dim=1).double().cpu().numpy()
    step = max(1, pairs[0].numel() // _PAIRS)
    users, items = pairs[0][::step].to(u.device), pairs[1][::step].to(u.device)
    rows = unit_rows(u[users]) if normalize in ("both", "user") else u[users]
    columns = unit_rows(i) if normalize in ("both", "item") else i
    found: dict[str, float | list[float] | None] = {
        "item_norm_by_group": _group_means(norm, groups),
        "item_norm_popularity": (
            float(scipy.stats.spearmanr(norm, popularity).statistic)
            if norm.min() < norm.max() and popularity.min() < popularity.max()
            else None
        ),
        "positive_score": float((rows * columns[items]).sum(1).mean()),
        "random_score": float(rows.mean(0) @ columns.mean(0)),
        "inv_tau_quantiles": np.quantile(inv_tau.double().cpu().numpy(), QUANTILES).tolist(),
    }
    if evaluation is not None:
        found[f"recall@{k}_by_group"] = group_recall(evaluation, groups, k).tolist()
    return found


def _group_means(values: np.ndarray, groups: np.ndarray) -> list[float]:
    count = np.bincount(groups, minlength=N_GROUPS)
    total = np.bincount(groups, weights=values, minlength=N_GROUPS)
    means: list[float] = (total / np.maximum(count, 1)).tolist()
    return means
