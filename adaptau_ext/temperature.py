"""Adap-tau: a temperature for every user, in closed form, once an epoch.

    w0  = log(n m / (2 |D|)) / (mu+ - mu)                     # 1 / tau0, for all users
    w_u = w0 * exp(-W(clamp((L_u - m_L) / T2, -1/e, 1000)))   # 1 / tau_u, W = Lambert's function

n users, m items, |D| training pairs; mu+ and mu are the mean cosine of positive pairs and of all pairs;
L_u is user u's mean loss of the last epoch at temperature 1, m_L its centre over users. Users that are
hard to fit (large L_u) get a small inverse temperature, easy ones a large one.

Nothing here knows a model: embeddings, pairs and per-row losses go in, temperatures come out.

Source: Adap-tau (WWW 2023), section 4; `mode="official"` follows the published experiments.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from adaptau_ext.reference import unit_rows

Strategy = Literal["weight_v0", "weight_mean", "weight_ratio"]


def lambert_w(x: Tensor) -> Tensor:
    """Principal branch of Lambert's function: W e^W = x.

    Args:
        x: any shape, floating; -1/e <= x (NaN below). Computed in float64.

    Returns:
        W(x) in x's dtype, within a few float64 roundings (near -1/e the function itself is
        ill-conditioned: W = -1 + sqrt(2 (e x + 1)) + ...).
    """
    z = x.double()
    # Series in p around the branch point -1/e, where rounding may have put z just below it.
    square = 2 * (math.e * z + 1)
    p = torch.where(square.abs() < 1e-14, 0, square).sqrt()
    series = -1 + p * (1 + p * (-1 / 3 + p * (11 / 72 + p * (-43 / 540))))
    log = torch.log1p(z.clamp(min=-0.25))
    w = torch.where(z < -0.2, series, log * (1 - torch.log1p(log) / (2 + log)))
    for _ in range(4):  # Halley's steps triple the digits, from a few per cent
        e = w.exp()
        f = w * e - z
        w = w - f / (e * (w + 1) - (w + 2) * f / (2 * w + 2))
    return torch.where(p < 1e-3, series, w).to(x.dtype)  # NaN below the branch point stays NaN


class AdaptiveTemperature:
    """Inverse temperatures of the published Adap-tau experiments (`mode="official"`).

    Use, once an epoch and once a batch::

        tau = AdaptiveTemperature(users, items, n_users, n_items, strategy="weight_mean")
        for epoch in range(n_epochs):
            tau.start_epoch(epoch, user_embeddings, item_embeddings)
            for batch_users, ... in batches:
                loss, unit_loss = fused_adaptive_softmax(
                    ..., tau=tau.of(batch_users), positive_tau=tau.tau0,
                    denominator="negatives", return_unit_loss=True)
                tau.record(batch_users, unit_loss)

    Args:
        users, items: `[|D|]` int64, the training pairs.
        n_users, n_items: sizes of the catalogue.
        strategy: "weight_v0" gives every user w0 (Adap-tau0); "weight_mean" centres the losses on
            their mean; "weight_ratio" on their `t1`-quantile.
        t1: quantile for "weight_ratio", in [0, 1].
        t2: T2 above, > 0: the larger, the more alike the users' temperatures.
        warmup_epochs: epochs that use `warmup_gap` for mu+ - mu, which is tiny at first.
        degree_quantile: w0 is computed over users with more training pairs than this quantile.

    Attributes:
        inv_tau0: w0, a float. inv_tau: `[n_users]` float64, w_u.
        tau0, of(users): the temperatures themselves, which divide the scores.
    """

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        n_users: int,
        n_items: int,
        *,
        mode: Literal["official"] = "official",
        strategy: Strategy = "weight_mean",
        t1: float = 1.0,
        t2: float = 1.0,
        warmup_epochs: int = 100,
        warmup_gap: float = 0.7,
        degree_quantile: float = 0.2,
    ) -> None:
        if mode != "official":
            raise ValueError(f'mode must be "official", got {mode!r}')
        if strategy not in ("weight_v0", "weight_mean", "weight_ratio"):
            raise ValueError(
                f'strategy must be "weight_v0", "weight_mean" or "weight_ratio", got {strategy!r}'
            )
        if not 0 <= t1 <= 1:
            raise ValueError(f"t1 must be a quantile in [0, 1], got {t1}")
        if not t2 > 0:
            raise ValueError(f"t2 must be > 0, got {t2}")
        if users.numel() == 0:
            raise ValueError("users must hold at least one training pair, got none")
        self.strategy, self.t1, self.t2 = strategy, t1, t2
        self.warmup_epochs, self.warmup_gap = warmup_epochs, warmup_gap
        self.n_users, self.n_items = n_users, n_items

        degree = torch.bincount(users, minlength=n_users)
        active = degree > torch.quantile(degree.double(), degree_quantile)
        if not bool(active.any()):  # every user has the same degree
            active = degree > 0
        self._active = active.nonzero()[:, 0]
        kept = active[users]
        self._pairs = (users[kept], items[kept])
        self._log_ratio = math.log(self._active.numel() * n_items / (2 * int(kept.sum())))
        if not self._log_ratio > 0:
            raise ValueError(
                "Adap-tau needs fewer than half of all user-item pairs in the training data, got "
                f"{int(kept.sum())} pairs of {self._active.numel()} users x {n_items} items"
            )
        self._loss_sum = torch.zeros(n_users, dtype=torch.float64, device=users.device)
        self._loss_count = torch.zeros(n_users, dtype=torch.int64, device=users.device)
        self.inv_tau0 = self._log_ratio / warmup_gap
        self.inv_tau = torch.full_like(self._loss_sum, self.inv_tau0)

    @property
    def tau0(self) -> float:
        """Temperature of the positives, the same for every user."""
        return 1 / self.inv_tau0

    def of(self, users: Tensor) -> Tensor:
        """Temperatures `[B]` float32 of a batch of users."""
        return (1 / self.inv_tau[users]).float()

    @torch.no_grad()
    def cosine_gap(self, user_embeddings: Tensor, item_embeddings: Tensor) -> float:
        """mu+ - mu of the current embeddings, `[n_users, d]` and `[n_items, d]`."""
        u, i = unit_rows(user_embeddings), unit_rows(item_embeddings)
        users, items = self._pairs
        positive = sum(
            float((u[user_chunk] * i[item_chunk]).sum(dtype=torch.float64))
            for user_chunk, item_chunk in zip(users.split(1 << 18), items.split(1 << 18), strict=True)
        )
        overall = float((u[self._active].double() @ i.double().mean(0)).mean())
        return positive / users.numel() - overall

    @torch.no_grad()
    def start_epoch(self, epoch: int, user_embeddings: Tensor, item_embeddings: Tensor) -> None:
        """Sets this epoch's temperatures from the embeddings and the last epoch's losses."""
        gap = self.warmup_gap
        if epoch >= self.warmup_epochs:
            gap = self.cosine_gap(user_embeddings, item_embeddings)
            if not gap > 0:
                raise RuntimeError(
                    f"Adap-tau needs positive pairs closer than random ones, got mu+ - mu = {gap:.4g} "
                    f"at epoch {epoch}; train longer with warmup_epochs > {epoch}, or check the data"
                )
        self.inv_tau0 = self._log_ratio / gap
        self.inv_tau.fill_(self.inv_tau0)
        seen = self._loss_count > 0
        if self.strategy != "weight_v0" and epoch > 0 and bool(seen.any()):
            loss = self._loss_sum[seen] / self._loss_count[seen]
            centre = loss.mean() if self.strategy == "weight_mean" else _quantile(loss, self.t1)
            x = ((loss - centre) / self.t2).clamp(-1 / math.e, 1000)
            self.inv_tau[seen] = self.inv_tau0 * torch.exp(-lambert_w(x))
        self._loss_sum.zero_()
        self._loss_count.zero_()

    @torch.no_grad()
    def record(self, users: Tensor, unit_loss: Tensor) -> None:
        """Adds a batch's losses at temperature 1, `[B]` each; a user's samples are averaged."""
        self._loss_sum.index_add_(0, users, unit_loss.double())
        self._loss_count.index_add_(0, users, torch.ones_like(users))


def _quantile(x: Tensor, q: float) -> Tensor:
    """Linear-interpolation quantile; torch.quantile stops at 2^24 elements."""
    ordered = x.sort()[0]
    position = q * (x.numel() - 1)
    low = math.floor(position)
    high = min(low + 1, x.numel() - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
