"""Adap-tau: a temperature for every user, in closed form, once an epoch.

    w0  = log(n m / (2 |D|)) / (mu+ - mu)                     # 1 / tau0, for all users
    w_u = w0 * exp(-W(clamp((L_u - m_L) / T2, -1/e, 1000)))   # 1 / tau_u, W = Lambert's function

n users, m items, |D| training pairs; mu+ and mu are the mean cosine of positive pairs and of all pairs;
L_u is user u's mean loss of the last epoch at temperature 1, m_L its centre over users. Users that are
hard to fit (large L_u) get a small inverse temperature, easy ones a large one.

Nothing here knows a model: embeddings, pairs and per-row losses go in, temperatures come out.

Source: Adap-tau (WWW 2023), section 4.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from adaptau_ext.errors import DataError, TrainingError
from adaptau_ext.reference import unit_rows
from adaptau_ext.temperature.lambert import lambert_w
from adaptau_ext.temperature.temperature import Temperature

Strategy = Literal["weight_v0", "weight_mean", "weight_ratio"]
Mode = Literal["official", "paper"]


class AdaptiveTemperature(Temperature):
    r"""Inverse temperatures of Adap-tau.

    Use, once an epoch and once a batch::

        tau = AdaptiveTemperature(users, items, n_users, n_items, strategy="weight_mean")
        for epoch in range(n_epochs):
            tau.start_epoch(epoch, user_embeddings, item_embeddings)
            for batch_users, ... in batches:
                loss, unit_loss = fused_adaptive_softmax(
                    ..., tau=tau.of(batch_users), positive_tau=tau.of_positives(batch_users),
                    denominator=tau.denominator, return_unit_loss=True)
                tau.record(batch_users, unit_loss)

    With `variance`, tau0 also counts the variances v+ and v of the cosines of positive and of all
    pairs::

        tau0 = (v+ - v) / (-(mu+ - mu) + sqrt((mu+ - mu)**2 + 2 (v+ - v) log(n m / (2 |D|))))

    Args:
        users, items: `[|D|]` int64, the training pairs.
        n_users, n_items: sizes of the catalogue.
        mode: "official" is what the published experiments did: positives have temperature tau0 and are
            not in the denominator, and w0 is computed over users above a quantile of activity. "paper"
            is what the paper says: one tau_u for positives and negatives, positives in the denominator,
            all users.
        strategy: "weight_v0" gives every user w0 (Adap-tau0); "weight_mean" centres the losses on
            their mean; "weight_ratio" on their `t1`-quantile.
        t1: quantile for "weight_ratio", in [0, 1].
        t2: T2 above, > 0: the larger, the more alike the users' temperatures. Default: 1, and 2 in mode
            "paper", whose 2 beta it is.
        variance: the form of tau0 with variances.
        warmup_epochs: epochs that use `warmup_gap` for mu+ - mu, which is tiny at first.
        degree_quantile: of mode "official": users with more training pairs than this quantile count.

    Attributes:
        inv_tau0: w0, a float.
        inv_tau: `[n_users]` float64, w_u.
        tau0, of(users): the temperatures themselves, which divide the scores.
    """

    inv_tau: Tensor
    _loss_sum: Tensor
    _loss_count: Tensor

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        n_users: int,
        n_items: int,
        *,
        mode: Mode = "official",
        strategy: Strategy = "weight_mean",
        t1: float = 1.0,
        t2: float | None = None,
        variance: bool = False,
        warmup_epochs: int = 100,
        warmup_gap: float = 0.7,
        degree_quantile: float = 0.2,
    ) -> None:
        super().__init__()
        if mode not in ("official", "paper"):
            raise ValueError(f'mode must be "official" or "paper", got {mode!r}')
        if strategy not in ("weight_v0", "weight_mean", "weight_ratio"):
            raise ValueError(
                f'strategy must be "weight_v0", "weight_mean" or "weight_ratio", got {strategy!r}'
            )
        if not 0 <= t1 <= 1:
            raise ValueError(f"t1 must be a quantile in [0, 1], got {t1}")
        t2 = t2 if t2 is not None else 2.0 if mode == "paper" else 1.0
        if not t2 > 0:
            raise ValueError(f"t2 must be > 0, got {t2}")
        if users.numel() == 0:
            raise ValueError("users must hold at least one training pair, got none")
        self.needs_unit_loss = strategy != "weight_v0"
        self.mode, self.strategy, self.t1, self.t2, self.variance = mode, strategy, t1, t2, variance
        self.denominator = "negatives" if mode == "official" else "all"
        self.warmup_epochs, self.warmup_gap = warmup_epochs, warmup_gap
        self.n_users, self.n_items = n_users, n_items

        degree = torch.bincount(users, minlength=n_users)
        active = degree > 0
        if mode == "official":
            above = degree > _quantile(degree.double(), degree_quantile)
            active = above if bool(above.any()) else active  # unless every user has the same degree
        self._active = active.nonzero()[:, 0]
        kept = active[users]
        self._pairs = (users[kept], items[kept])
        self._log_ratio = math.log(self._active.numel() * n_items / (2 * int(kept.sum())))
        if not self._log_ratio > 0:
            raise DataError(
                "Adap-tau needs fewer than half of all user-item pairs in the training data, got "
                f"{int(kept.sum())} pairs of {self._active.numel()} users x {n_items} items; "
                "use a fixed temperature, like tau=0.1"
            )
        self.inv_tau0 = self._log_ratio / warmup_gap
        zeros = torch.zeros(n_users, dtype=torch.float64, device=users.device)
        self.register_buffer("inv_tau", torch.full_like(zeros, self.inv_tau0))
        self.register_buffer("_loss_sum", zeros)
        self.register_buffer("_loss_count", torch.zeros_like(zeros, dtype=torch.int64))

    def get_extra_state(self) -> float:
        """w0, for state_dict()."""
        return self.inv_tau0

    def set_extra_state(self, state: float) -> None:
        """w0, of state_dict()."""
        self.inv_tau0 = state

    @property
    def tau0(self) -> float:
        """1 / w0."""
        return 1 / self.inv_tau0

    def of(self, users: Tensor) -> Tensor:
        """tau_u, `[B]` float32, of a batch of users."""
        return (1 / self.inv_tau[users]).float()

    def of_positives(self, users: Tensor) -> Tensor | None:
        """tau0 for everyone, or in mode "paper" tau_u."""
        if self.mode == "paper":
            return None
        return torch.full(users.shape, self.tau0, device=users.device)

    @torch.no_grad()
    def cosine_gap(self, user_embeddings: Tensor, item_embeddings: Tensor) -> float:
        """mu+ - mu of the current embeddings, `[n_users, d]` and `[n_items, d]`."""
        return self._gaps(unit_rows(user_embeddings), unit_rows(item_embeddings))[0]

    def _gaps(self, u: Tensor, i: Tensor) -> tuple[float, float]:
        """Of unit rows: mu+ - mu and v+ - v."""
        users, items = self._pairs
        total = squares = 0.0
        for chunk in zip(users.split(1 << 18), items.split(1 << 18), strict=True):
            cosine = (u[chunk[0]] * i[chunk[1]]).sum(1).double()
            total, squares = total + float(cosine.sum()), squares + float(cosine.square().sum())
        active, i = u[self._active].double(), i.double()
        mean = float((active @ i.mean(0)).mean())
        mean_positive = total / users.numel()
        if not self.variance:
            return mean_positive - mean, 0.0
        # mean of (u . i)^2 over all pairs = <mean of u u^T, mean of i i^T>
        square = float(((active.T @ active) * (i.T @ i)).sum()) / (len(active) * len(i))
        return mean_positive - mean, squares / users.numel() - mean_positive**2 - (square - mean**2)

    @torch.no_grad()
    def start_epoch(self, epoch: int, user_embeddings: Tensor, item_embeddings: Tensor) -> None:
        """Sets this epoch's temperatures from the embeddings and the last epoch's losses.

        Raises:
            TrainingError: after the warm-up, if the closed form has no solution: positive pairs are no
                closer than random ones.
        """
        gap, spread = self.warmup_gap, 0.0
        if epoch >= self.warmup_epochs:
            gap, spread = self._gaps(unit_rows(user_embeddings), unit_rows(item_embeddings))
            if not gap > 0:
                raise TrainingError(
                    f"Adap-tau needs positive pairs closer than random ones, got mu+ - mu = {gap:.4g} "
                    f"at epoch {epoch}; train longer with warmup_epochs > {epoch}, or check the data"
                )
        self.inv_tau0 = 1 / _tau0(gap, spread, self._log_ratio)
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


def _tau0(gap: float, spread: float, log_ratio: float) -> float:
    """The form with variances, multiplied out: nothing cancels; without them it is the simple one."""
    inside = gap * gap + 2 * spread * log_ratio
    if inside < 0:
        raise TrainingError(
            f"the form of tau0 with variances has no solution for mu+ - mu = {gap:.4g}, v+ - v = "
            f"{spread:.4g}; use variance=False"
        )
    return (gap + math.sqrt(inside)) / (2 * log_ratio)


def _quantile(x: Tensor, q: float) -> Tensor:
    """Linear-interpolation quantile; torch.quantile stops at 2^24 elements."""
    ordered = x.sort()[0]
    position = q * (x.numel() - 1)
    low = math.floor(position)
    high = min(low + 1, x.numel() - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
