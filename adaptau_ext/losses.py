"""Losses that recommenders are trained with beside softmax, to compare on equal terms.

    bpr, bce, mse, cosine_contrastive    of a positive's score and its negatives' scores
    direct_au, bilateral_softmax         of a batch's embeddings, on fused_adaptive_softmax's kernels

`adaptau_ext.sampled_scores` makes the scores of positives and sampled negatives, without their rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, relu, softplus

from adaptau_ext.arguments import compute_dtype
from adaptau_ext.ops import fused_adaptive_softmax


def bpr(positive: Tensor, negatives: Tensor) -> Tensor:
    """Bayesian personalised ranking: mean of softplus(s- - s+) over pairs.

    Args:
        positive: scores `[B]`; negatives: scores `[B, N]`, as in all of the following.

    Source: Rendle et al., UAI 2009.
    """
    return softplus(negatives - positive[:, None]).mean()


def bce(positive: Tensor, negatives: Tensor) -> Tensor:
    """Binary cross-entropy, negatives averaged: mean of softplus(-s+) + mean of softplus(s-)."""
    return softplus(-positive).mean() + softplus(negatives).mean()


def mse(positive: Tensor, negatives: Tensor) -> Tensor:
    """Squared error with targets 1 and 0, negatives averaged: mean of (1 - s+)^2 + mean of s-^2."""
    return (1 - positive).square().mean() + negatives.square().mean()


def cosine_contrastive(
    positive: Tensor, negatives: Tensor, *, margin: float = 0.4, negative_weight: float = 1.0
) -> Tensor:
    """SimpleX: mean of (1 - s+) + negative_weight * mean of max(0, s- - margin); scores are cosines.

    Source: SimpleX (Mao et al., CIKM 2021), equation 1.
    """
    return (1 - positive).mean() + negative_weight * relu(negatives - margin).mean()


def uniformity(x: Tensor) -> Tensor:
    r"""How unevenly unit rows lie on the sphere: 0 if all are the same, less the further apart.

    ::

        x = normalize(x)
        log(mean over pairs j != b of exp(-2 |x_b - x_j|^2))

    Args:
        x: `[B, d]`, at least two rows.
    """
    n = x.shape[0]
    if n < 2:
        raise ValueError(f"x must have at least two rows, got {n}")
    # -2 |x_b - x_j|^2 = 4 x_b . x_j - 2 |x_b|^2 - 2 |x_j|^2, where |x|^2 is 1, or 0 of a row of zeros.
    # A row's loss is the log of the sum over the others less its own product, which is 4 |x_b|^2.
    squares = x.detach().any(1).to(compute_dtype(x))
    rows = _row_losses(x, x, 0.25, log_q=2 * squares) + 2 * squares
    return torch.logsumexp(rows, 0) - math.log(n * (n - 1))


def _row_losses(u: Tensor, i: Tensor, tau: float, log_q: Tensor | None = None) -> Tensor:
    loss = fused_adaptive_softmax(u, i, tau, denominator="negatives", log_q=log_q, reduction="none")
    assert isinstance(loss, Tensor)
    return loss


def direct_au(u: Tensor, i: Tensor, *, gamma: float = 1.0) -> Tensor:
    """DirectAU: alignment of pairs + gamma * mean uniformity of the batch's users and items.

    ::

        mean |u^ - i^|^2 + gamma * (uniformity(u) + uniformity(i)) / 2

    Args:
        u, i: `[B, d]`, row b of both a positive pair.

    Source: DirectAU (Wang et al., KDD 2022).
    """
    alignment = (normalize(u, dim=1) - normalize(i, dim=1)).square().sum(1).mean()
    return alignment + gamma * (uniformity(u) + uniformity(i)) / 2


def bilateral_softmax(
    u: Tensor,
    i: Tensor,
    users: Tensor,
    *,
    tau: float = 0.1,
    positive_tau: float = 0.1,
) -> Tensor:
    r"""BSL: log-expectation-exp of a user's positives as of its negatives, over the batch.

    ::

        - positive_tau * log mean over the user's positives of exp(s+ / positive_tau)
        + tau * log mean over the other items of exp(s- / tau)                # mean over rows of both

    Args:
        u, i: `[B, d]`, row b of both a positive pair; the others' items are row b's negatives.
        users: `[B]` int64 ids: rows of one user share their positives.

    Source: BSL (Wu et al., ICDE 2024).
    """
    n = u.shape[0]
    cosine = (normalize(u, dim=1) * normalize(i, dim=1)).sum(1)
    rest = _row_losses(u, i, tau) + cosine / tau
    _, row_user, count = users.unique(return_inverse=True, return_counts=True)
    most = (
        cosine.detach().new_full((len(count),), -1).scatter_reduce(0, row_user, cosine.detach(), "amax")
    )
    exponentials = torch.zeros_like(most).index_add(
        0, row_user, ((cosine - most[row_user]) / positive_tau).exp()
    )
    positives = most + positive_tau * (exponentials / count).log()
    loss: Tensor = tau * (rest.mean() - math.log(n - 1)) - positives[row_user].mean()
    return loss
