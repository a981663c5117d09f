"""Error budgets against float64, derived from how the result is computed, not tuned.

With u the unit roundoff of the compute dtype, a score of d terms of unit rows is off by at most
(d / 2 + 4) * 2u: one rounding a product-and-add (u of a partial sum of at most 1), a few in the norms.
Divided by tau that is a logit's error dz; a probability's relative error is then 2 dz (its own and the
denominator's), and sums over n terms add n u at worst, n / 48 u the way tiles are summed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 48


def roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


@dataclass
class LossBudget:
    """Budgets for loss and gradients of `sum_b weight_b loss_b` with cosine scores or plain ones."""

    u: float
    logit_error: float
    logit_size: float
    longest_sum: int
    weights: float = 0.0

    @classmethod
    def of(
        cls, dtype: torch.dtype, u: Tensor, i: Tensor, tau: Tensor, normalize: str, longest_sum: int,
        factors: float = 0.0, weights: float = 0.0,
    ) -> LossBudget:  # fmt: skip
        """factors, weights: relative errors of what is multiplied to scores, and of exponentials in
        products, where those are coarser than the dtype."""
        unit = roundoff(dtype)
        d = u.shape[-1]
        size = 1.0
        if normalize in ("item", "none") and u.numel():
            size *= float(u.double().norm(dim=-1).max())
        if normalize in ("user", "none") and i.numel():
            size *= float(i.double().norm(dim=-1).max())
        inv_tau = float((1 / tau.double()).max()) if tau.numel() else 1.0
        logit = max(1.0, inv_tau) * size
        error = logit * ((d / 2 + 4) * 2 * unit + 2 * factors)
        return cls(unit, error, logit, longest_sum, weights)

    @property
    def loss(self) -> float:
        """Absolute: log-sum-exp and the positive's logit are off by dz each, plus their rounding."""
        return 2 * self.logit_error + 4 * self.u * self.logit_size + 32 * self.u

    @property
    def gradient(self) -> float:
        """Relative to the sum of the absolute terms that make up a gradient."""
        return 4 * self.logit_error + (self.longest_sum / TILE + 64) * 2 * self.u + self.weights


def reduced(budget: float, unit: float, rows: Tensor, reduction: str) -> Tensor | float:
    """Budget of a loss whose rows `[B]` are off by `budget` and eight roundings of their size each.

    "mean" and "sum" add them up one after the other in float64: as many roundings as there are rows.
    """
    own = budget + rows.abs() * 8 * unit
    if reduction == "none":
        return own
    summed = own + rows.abs() * len(rows) * roundoff(torch.float64)
    return summed.mean() if reduction == "mean" and len(rows) else summed.sum()


def assert_within(actual: Tensor, exact: Tensor, budget: float | Tensor, what: str = "") -> None:
    """|actual - exact| <= budget elementwise; NaN only where exact is NaN.

    What is larger than the dtype of `actual` can hold is infinite there.
    """
    assert actual.shape == exact.shape, f"{what}: shape {actual.shape}, expected {exact.shape}"
    largest = torch.finfo(actual.dtype).max
    actual, exact = (x.double().clamp(-largest, largest) for x in (actual, exact))
    assert torch.equal(actual.isnan(), exact.isnan()), f"{what}: NaN in different places"
    excess = ((actual - exact).abs() - budget).nan_to_num(nan=-1.0)
    if excess.numel() and float(excess.max()) > 0:
        worst = int(excess.argmax())
        limit = torch.as_tensor(budget, dtype=torch.float64).expand_as(excess).flatten()[worst]
        raise AssertionError(
            f"{what}: {actual.flatten()[worst]:.9g} is not {exact.flatten()[worst]:.9g} "
            f"within {float(limit):.3g} at {worst}"
        )


def assert_same_ranking(
    ids: Tensor, scores: Tensor, exact_scores: Tensor, allowed: Tensor, budget: float
) -> None:
    """`ids` [B, k] is a correct top-k of `exact_scores` [B, M] up to score errors of `budget`.

    Checked without asking for one particular order among near-ties: scores belong to their ids, do not
    increase, ids are distinct and allowed, and nothing left out beats the last by more than twice the
    budget.
    """
    exact = exact_scores.double()
    for row in range(ids.shape[0]):
        chosen = ids[row]
        assert chosen.unique().numel() == chosen.numel(), f"row {row}: an id comes twice"
        assert bool(allowed[row, chosen].all()), f"row {row}: an excluded item was returned"
        assert_within(scores[row], exact[row, chosen], budget, f"row {row}: score")
        assert bool((scores[row].diff() <= 0).all()), f"row {row}: scores increase"
        left_out = allowed[row].clone()
        left_out[chosen] = False
        if bool(left_out.any()) and chosen.numel():
            best = float(exact[row][left_out].max())
            last = float(exact[row, chosen].min())
            assert best <= last + 2 * budget, f"row {row}: {best} was left out, {last} was kept"
