"""Losses against their definitions in float64, gradients included."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from adaptau_ext import losses


def check(got: Callable[[Tensor, Tensor], Tensor], exact: Callable[[Tensor, Tensor], Tensor]) -> None:
    u, i = torch.randn(2, 30, 12)
    values, grads = [], []
    for function, dtype in ((got, torch.float32), (exact, torch.float64)):
        x, y = (t.detach().to(dtype).requires_grad_() for t in (u, i))
        value = function(x, y)
        value.backward()
        values.append(value.detach().double())
        grads.append(torch.cat([x.grad, y.grad]).double())
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def scores(u: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    return (u * i).sum(1), u @ i[:9].T


@pytest.mark.parametrize(
    ("ours", "exact"),
    [
        (losses.bpr, lambda p, n: -logsigmoid(p[:, None] - n).mean()),
        (losses.bce, lambda p, n: -logsigmoid(p).mean() - logsigmoid(-n).mean()),
        (losses.mse, lambda p, n: ((p - 1) ** 2).mean() + (n**2).mean()),
        (
            lambda p, n: losses.cosine_contrastive(p, n, margin=0.3, negative_weight=5.0),
            lambda p, n: (1 - p).mean() + 5 * torch.where(n > 0.3, n - 0.3, 0).mean(),
        ),
    ],
    ids=["bpr", "bce", "mse", "ccl"],
)
def test_pointwise_losses(ours: Callable[..., Tensor], exact: Callable[..., Tensor]) -> None:
    check(lambda u, i: ours(*scores(u, i)), lambda u, i: exact(*scores(u, i)))


def pairwise_uniformity(x: Tensor) -> Tensor:
    return torch.pdist(normalize(x, dim=1)).square().mul(-2).exp().mean().log()


def test_direct_au() -> None:
    def exact(u: Tensor, i: Tensor) -> Tensor:
        alignment = (normalize(u, dim=1) - normalize(i, dim=1)).norm(dim=1).square().mean()
        return alignment + 0.7 * (pairwise_uniformity(u) + pairwise_uniformity(i)) / 2

    check(lambda u, i: losses.direct_au(u, i, gamma=0.7), exact)
    same = torch.ones(5, 4)
    assert float(losses.uniformity(same)) == pytest.approx(0, abs=1e-5)
    zeros = torch.cat([torch.zeros(2, 4), torch.randn(5, 4)]).double()
    assert float(losses.uniformity(zeros)) == pytest.approx(float(pairwise_uniformity(zeros)), rel=1e-9)
    with pytest.raises(ValueError, match="x must have at least two rows, got 1"):
        losses.uniformity(same[:1])


@pytest.mark.parametrize("tau", [0.5, 0.005])  # of the smaller exp(-1 / tau) is nothing
def test_bilateral_softmax(tau: float) -> None:
    users = torch.arange(30) // 4  # four positives a user

    def exact(u: Tensor, i: Tensor) -> Tensor:
        cosine = normalize(u, dim=1) @ normalize(i, dim=1).T
        total = torch.zeros((), dtype=u.dtype)
        for b in range(30):
            others = cosine[b][torch.arange(30) != b]
            own = cosine.diagonal()[users == users[b]]
            total = total + 0.2 * (torch.logsumexp(others / 0.2, 0) - math.log(29))
            total = total - tau * (torch.logsumexp(own / tau, 0) - math.log(len(own)))
        return total / 30

    check(lambda u, i: losses.bilateral_softmax(u, i, users, tau=0.2, positive_tau=tau), exact)
