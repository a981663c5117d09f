"""The scan of bytes returns what the float scan returns, ids and scores to the bit, on any data.

`topk` scans bytes from 32 users and 2048 items on; docs/topk.md proves that it misses nothing. Every
result here meets three oracles:

* the float scan: the same call on 31 users at a time, too few for bytes;
* `ranks`, which counts with the float scan and selects nothing: item number i must have rank i + 1;
* where rows are not normalised, scores of fused multiply-adds emulated in float64 (`chain`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from tests.budget import LossBudget, assert_same_ranking

B, M = 50, 2500  # a whole group and a rest of 2, 52 panels and a rest of 4
DIMENSIONS = (1, 3, 16, 17, 64, 100, 257, 1000)
FUSED = torch.ops.adaptau.cpu_level() != "baseline"


def chain(u: np.ndarray, i: np.ndarray) -> np.ndarray:
    """Float32 scores [...], one fused multiply-add a dimension, of float32 rows u, i [..., d].

    A product is exact in float64; the sum is rounded to odd, so that rounding it again to float32 is
    right.
    """
    score = np.zeros(np.broadcast_shapes(u.shape, i.shape)[:-1], np.float32)
    with np.errstate(all="ignore"):
        for k in range(u.shape[-1]):
            product, before = u[..., k].astype(np.float64) * i[..., k], score.astype(np.float64)
            total = product + before
            part = total - product
            error = (product - (total - part)) + (before - part)
            bits = total.view(np.int64)
            even = np.isfinite(total) & (error != 0) & (bits % 2 == 0)
            # towards the error: one up in magnitude where both have the same sign
            bits[even] += np.where((error > 0) == (total > 0), 1, -1)[even]
            score = total.astype(np.float32)
    return score


def csr(rows: list[np.ndarray], n_items: int) -> scipy.sparse.csr_array:
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.concatenate([np.sort(row) for row in rows])
    return scipy.sparse.csr_array((np.ones(len(indices)), indices, indptr), (len(rows), n_items))


def float_scan(
    u: Tensor, i: Tensor, k: int, exclude: scipy.sparse.csr_array | None, normalize: str
) -> tuple[Tensor, Tensor]:
    parts = [
        ax.topk(
            u[b : b + 31],
            i,
            k,
            exclude=None if exclude is None else exclude[b : b + 31],
            normalize=normalize,
        )
        for b in range(0, len(u), 31)
    ]
    return torch.cat([s for s, _ in parts]), torch.cat([ids for _, ids in parts])


def check(
    u: Tensor,
    i: Tensor,
    k: int,
    exclude: scipy.sparse.csr_array | None = None,
    normalize: str = "none",
) -> None:
    scores, ids = ax.topk(u, i, k, exclude=exclude, normalize=normalize)
    expected_scores, expected_ids = float_scan(u, i, k, exclude, normalize)
    assert torch.equal(ids, expected_ids)
    assert torch.equal(scores.view(torch.int32), expected_scores.view(torch.int32))

    place = ids.argsort(dim=1)
    targets = (torch.arange(len(u) + 1) * k, ids.gather(1, place).flatten())
    ranks = ax.ranks(u, i, targets, exclude=exclude, normalize=normalize).view(len(u), k)
    assert torch.equal(ranks, place + 1)
    if exclude is not None:
        assert not reference.csr_mask(exclude, len(u), len(i), u.device).gather(1, ids).any()

    if normalize == "none" and FUSED:
        exact = chain(u.float().numpy()[:, None], i.float().numpy()[ids.numpy()])
        np.testing.assert_array_equal(scores.numpy(), exact)


def clustered(n: int, d: int) -> Tensor:
    return torch.randn(9, d)[torch.randint(9, (n,))] + 0.05 * torch.randn(n, d)


def repeated(n: int, d: int) -> Tensor:
    return torch.randn(n // 50, d)[torch.randint(n // 50, (n,))]


def outlier_coordinate(n: int, d: int) -> Tensor:
    x = torch.randn(n, d)
    x[:, d // 2] *= 1e3
    return x


def mixed_norms(n: int, d: int) -> Tensor:
    """Large and small rows side by side in a panel, 1e-40 among them, and a zero row."""
    x = torch.randn(n, d) * 10.0 ** torch.randint(-40, 10, (n, 1))
    x[n // 2] = 0
    return x


def with_some(value: float, share: float) -> Callable[[int, int], Tensor]:
    """Normal rows, some of them with some entries replaced: by more than a row's last, first, all."""

    def rows(n: int, d: int) -> Tensor:
        x = torch.randn(n, d)
        x[(torch.rand(n, 1) < share) & (torch.rand(n, d) < torch.rand(n, 1))] = value
        x[1::97] = value
        return x

    return rows


def scaled(scale: float) -> Callable[[int, int], Tensor]:
    return lambda n, d: scale * torch.randn(n, d)


normal = scaled(1)
# what users and items look like
DATA: dict[str, tuple[Callable[[int, int], Tensor], Callable[[int, int], Tensor]]] = {
    "normal": (normal, normal),
    "clustered": (clustered, clustered),
    "common mean": (
        lambda n, d: 3 + torch.randn(n, d),
        lambda n, d: 50 * torch.ones(d) + 1e-3 * torch.randn(n, d),
    ),
    "lognormal norms": (normal, lambda n, d: torch.randn(n, d) * (2 * torch.randn(n, 1)).exp()),
    "heavy ties": (normal, repeated),
    "one row": (normal, lambda n, d: torch.randn(1, d).repeat(n, 1)),
    "zero items": (normal, lambda n, d: torch.zeros(n, d)),
    "zero users": (lambda n, d: torch.zeros(n, d), normal),
    "small integers": (
        lambda n, d: torch.randint(-2, 3, (n, d)).float(),
        lambda n, d: torch.randint(-2, 3, (n, d)).float(),
    ),
    "some NaN": (with_some(torch.nan, 0.1), with_some(torch.nan, 0.1)),
    "NaN in few items": (normal, with_some(torch.nan, 0.002)),
    "infinities": (with_some(torch.inf, 0.1), with_some(-torch.inf, 0.1)),
    "huge": (normal, scaled(1e30)),
    "huge both": (scaled(1e30), scaled(1e7)),  # overflow in the middle of some sums
    "tiny": (normal, scaled(1e-30)),
    "tiny both": (scaled(1e-15), scaled(1e-15)),
    "subnormal scores": (scaled(1e-22), scaled(1e-20)),
    "subnormal items": (normal, scaled(1e-40)),
    "subnormal users": (scaled(1e-40), normal),
    "large users, small items": (scaled(1e25), scaled(1e-11)),
    "outlier coordinate": (normal, outlier_coordinate),
    "mixed norms": (normal, mixed_norms),
}


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("kind", DATA)
def test_data(kind: str, d: int) -> None:
    users, items = DATA[kind]
    turn = DIMENSIONS.index(d) + list(DATA).index(kind)
    k = (1, 7, 20, 48, 49, 100)[turn % 6]
    u, i = users(B, d), items(M, d)
    check(u, i, k)
    check(u, i, k, normalize=("both", "user", "item")[turn % 3])


@pytest.mark.parametrize("k", [1, 7, 20, 48, 49, 100, 1000, M])
@pytest.mark.parametrize("kind", ["normal", "heavy ties", "some NaN", "common mean"])
def test_k(kind: str, k: int) -> None:
    users, items = DATA[kind]
    check(users(B, 24), items(M, 24), k)


def first_items(kind: str, k: int) -> list[np.ndarray]:
    """Exclusions that take away the items from which the bounds start, in several ways."""
    rng = np.random.default_rng(0)
    rows = []
    for b in range(B):
        if kind == "first":
            rows.append(np.arange(b * 40))
        elif kind == "every eighth":  # one of each group of eight
            rows.append(np.arange(b % 8, M, 8))
        elif kind == "nearly all":
            rows.append(rng.permutation(M)[: M - k])
        elif kind == "all but the last":
            rows.append(np.arange(M - k))
        else:
            rows.append(rng.permutation(M)[: 1 + b * b // 2])
    return rows


@pytest.mark.parametrize("k", [1, 20, 100])
@pytest.mark.parametrize("kind", ["first", "every eighth", "nearly all", "all but the last", "random"])
def test_exclusions(kind: str, k: int) -> None:
    exclude = csr(first_items(kind, k), M)
    for data in ("normal", "heavy ties", "some NaN"):
        check(DATA[data][0](B, 16), DATA[data][1](M, 16), k, exclude)


@pytest.mark.parametrize("k", [1, 20, 60])
def test_the_best_items_are_excluded(k: int) -> None:
    """The maxima of the first groups are all excluded ones: a bound that counted them would be too high."""
    u, i = torch.randn(B, 16), torch.randn(M, 16)
    best = ax.topk(u, i, 500)[1].numpy()
    check(u, i, k, csr(list(best), M))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", ["both", "none"])
def test_half_precision(dtype: torch.dtype, normalize: str) -> None:
    for d in (16, 17, 100):
        check(torch.randn(B, d).to(dtype), torch.randn(M, d).to(dtype), 20, normalize=normalize)


@pytest.mark.parametrize("d", [16, 17])
def test_strides(d: int) -> None:
    check(torch.randn(d, B).T, torch.randn(M, 2 * d)[:, ::2], 20)
    check(torch.randn(B, 3 * d)[:, d : 2 * d], torch.randn(2 * M, d)[::2], 20)
    check(torch.randn(1, d).expand(B, d), torch.randn(1, d).expand(M, d), 20)


@pytest.mark.parametrize(
    ("n_users", "n_items"), [(32, 2048), (47, 2100), (48, 2049), (97, 2303), (145, 2400)]
)
def test_sizes(n_users: int, n_items: int) -> None:
    check(torch.randn(n_users, 33), torch.randn(n_items, 33), 20)


def test_ranges_of_items_have_bounds_of_their_own(restore_threads: None) -> None:
    """Few users and several threads: the catalogue is cut, and every part starts from its own bounds."""
    u, i = torch.randn(B, 20), torch.randn(13000, 20)
    exclude = csr([np.arange(b * 100, b * 100 + 5000) for b in range(B)], 13000)
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        for k in (1, 20, 100, 700):
            check(u, i, k, exclude)


def test_float64_agrees_up_to_near_ties() -> None:
    for kind in ("normal", "common mean", "outlier coordinate"):
        u, i = DATA[kind][0](B, 64), DATA[kind][1](M, 64)
        for normalize in ("none", "both"):
            scores, ids = ax.topk(u, i, 20, normalize=normalize)
            budget = LossBudget.of(torch.float32, u, i, torch.ones(1), normalize, 1).logit_error
            user, item = reference.normalized_pair(u.double(), i.double(), normalize)
            exact = user @ item.T
            assert_same_ranking(ids, scores, exact, torch.ones_like(exact, dtype=torch.bool), budget)


def test_many_dimensions() -> None:
    """The rounding of a chain grows with d, and with it what a score may be off its exact value."""
    for d in (4096, 16384, 16385):
        check(1 + torch.randn(32, d), 1 + 0.01 * torch.randn(2048, d), 5)


@pytest.mark.parametrize("bad", range(4))
def test_nan_rows_do_not_touch_their_neighbours(bad: int) -> None:
    """Whole rows of NaN, first, inside and last of a panel: neither bounds nor hits may come from them."""
    for d in (3, 7, 16):
        u, i = torch.randn(B, d), torch.randn(M, d)
        i[48 * torch.arange(52) + (0, 1, 24, 47)[bad]] = torch.nan
        for k in (1, 5, 40):
            check(u, i, k)
            check(u, i, k, normalize="item")


def test_sums_that_overflow_on_the_way() -> None:
    """A finite product whose float32 chain passes 3.4e38 scores infinity: no bound may rely on the product."""
    largest, spread = torch.finfo(torch.float32).max / 3e20, 2e13
    u = torch.tensor([3e20, -3e20, 3e20]).repeat(B, 1)
    first, last = spread * torch.randn(2, M).tanh()
    i = torch.stack((largest + first, torch.full((M,), largest), last), 1)
    assert 0.2 < float(ax.topk(u, i, M)[0].isinf().double().mean()) < 0.8
    for k in (1, 20, 300):
        check(u, i, k)
        check(-u, i, k)
