"""What must not depend on how a problem is put: order of items, scale, splits, batches, threads.

Cases come from hypothesis, the same ones in every run. Bitwise where the operators promise bits
(`adaptau_ext.ops`), else within the budgets of tests/budget.py.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from adaptau_ext.dropout import dropout
from tests.budget import LossBudget, assert_within
from tests.fuzz.tensors import csr, matrix, threads

few = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# around tiles of 48, vectors of 4 to 16, and where the scan of bytes starts
rows, items, dims = (
    st.sampled_from(sizes)
    for sizes in ((1, 3, 47, 48, 49, 70), (1, 2, 47, 48, 49, 97, 150, 700), (1, 3, 8, 17, 64))
)
seeds = st.integers(0, 999)
dtypes = st.sampled_from(["float32", "float64", "bfloat16", "float16"])
normalize = st.sampled_from(["both", "user", "item", "none"])
values = st.sampled_from(["normal", "small integers", "equal rows", "zero rows"])


def same_bits(found: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.nan_to_num(0.5), b.nan_to_num(0.5))


def borders(n: int, seed: int) -> Iterator[tuple[int, int]]:
    """[0, n) in parts of any size, some of them empty."""
    draw = torch.Generator().manual_seed(seed)
    sizes = [int(x) for x in torch.randint(0, 1 + n // 2, (n,), generator=draw)]
    yield from pairwise([0, *(min(at, n) for at in accumulate(sizes)), n])


def loss_and_gradients(u: Tensor, i: Tensor, tau: Tensor, **options: Any) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in (u, i, tau)]
    loss = ax.fused_adaptive_softmax(*leaves, reduction="none", **options)
    assert isinstance(loss, Tensor)
    loss.backward(torch.linspace(-1, 1, len(loss)).to(loss))
    return [loss.detach(), *(x.grad for x in leaves if x.grad is not None)]


def problem(
    n: int, m: int, d: int, dtype: str, kind: str, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """u, i, tau, target."""
    draw = torch.Generator().manual_seed(seed)
    compute = torch.float64 if dtype == "float64" else torch.float32
    tau = torch.rand(n, generator=draw, dtype=compute) + 0.2
    target = torch.randint(m, (n,), generator=draw)
    u, i = (matrix(size, d, dtype, kind, "contiguous", seed + side) for side, size in enumerate((n, m)))
    return u, i, tau, target


# Permutations of the items


@few
@given(rows, items, dims, dtypes, normalize, values, seeds)
def test_topk_and_ranks_of_permuted_items(
    n: int, m: int, d: int, dtype: str, how: Any, kind: str, seed: int
) -> None:
    """Scores stay, bit for bit, and so do ids: sorted by score, then by the id that they now have."""
    u, i, _, _ = problem(n, m, d, dtype, kind, seed)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    new_id = order.argsort()
    scores, ids = ax.topk(u, i, m, normalize=how)
    permuted, permuted_ids = ax.topk(u, i[order], m, normalize=how)
    assert torch.equal(scores, permuted)
    for row in range(n):
        expected = sorted(zip((-scores[row]).tolist(), new_id[ids[row]].tolist(), strict=True))
        assert permuted_ids[row].tolist() == [id for _, id in expected]
    everything = torch.arange(n + 1) * m, torch.arange(m).repeat(n)
    places = ax.ranks(u, i[order], everything, normalize=how).view(n, m)
    assert torch.equal(places.gather(1, permuted_ids), torch.arange(1, m + 1).expand(n, m))


@few
@given(rows, items, dims, dtypes, normalize, seeds)
def test_loss_of_permuted_items(n: int, m: int, d: int, dtype: str, how: str, seed: int) -> None:
    u, i, tau, target = problem(n, m, d, dtype, "normal", seed)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    loss, grad_u, grad_i, grad_tau = loss_and_gradients(u, i, tau, target=target, normalize=how)
    ours = loss_and_gradients(u, i[order], tau, target=order.argsort()[target], normalize=how)
    budget = LossBudget.of(tau.dtype, u, i, tau, how, max(n, m))
    assert_within(ours[0], loss, 2 * budget.loss + 16 * budget.u * loss.abs().double(), "loss")
    # gradients: a sum of terms of at most 2 / tau times the largest row, divided by the norm of its own
    longest = max(1.0, *(float(x.double().norm(dim=1).max()) for x in (u, i)))
    shortest = min(1.0, *(float(x.double().norm(dim=1).min()) for x in (u, i)))
    size = 4 * float((1 / tau).max()) ** 2 * longest**2 / max(shortest, 1e-6) * n
    own = torch.finfo(u.dtype).eps
    for found, expected, name in (
        (ours[1], grad_u, "grad u"), (ours[2], grad_i[order], "grad i"), (ours[3], grad_tau, "grad tau")
    ):  # fmt: skip
        limit = 2 * budget.gradient * size + 2 * own * expected.double().abs()
        assert_within(found, expected, limit, name)


# Scales


@few
@given(rows, items, dims, st.sampled_from(["float32", "float64"]), st.integers(-12, 12), seeds)
def test_powers_of_two_change_no_bit_of_normalised_results(
    n: int, m: int, d: int, dtype: str, power: int, seed: int
) -> None:
    u, i, tau, target = problem(n, m, d, dtype, "normal", seed)
    factor = 2.0**power
    ours = loss_and_gradients(u * factor, i / factor, tau, target=target)
    loss, grad_u, grad_i, grad_tau = loss_and_gradients(u, i, tau, target=target)
    same_bits(ours, (loss, grad_u / factor, grad_i * factor, grad_tau))
    found = ax.topk(u * factor, i / factor, m, normalize="both")
    same_bits(found, ax.topk(u, i, m, normalize="both"))
    negatives = torch.randint(m, (n, 5), generator=torch.Generator().manual_seed(seed))
    sampled = [
        ax.sampled_adaptive_softmax(
            users, table, None, target, tau, negatives=negatives, reduction="none"
        )
        for users, table in ((u * factor, i / factor), (u, i))
    ]
    assert torch.equal(*sampled)  # type: ignore[arg-type]


@few
@given(rows, items, dims, dtypes, st.floats(0.01, 100), seeds)
def test_any_scale_is_within_the_budget(
    n: int, m: int, d: int, dtype: str, factor: float, seed: int
) -> None:
    u, i, tau, target = problem(n, m, d, dtype, "normal", seed)
    scaled = (u.double() * factor).to(u.dtype)
    loss = ax.fused_adaptive_softmax(scaled, i, tau, target=target, reduction="none")
    exact = reference.fused_adaptive_softmax(
        u.double(), i.double(), tau.double(), target=target, reduction="none"
    )
    # rounding the scaled rows moves a cosine by at most the roundoff of their dtype, twice a logit
    budget = LossBudget.of(tau.dtype, u, i, tau, "both", m, factors=torch.finfo(u.dtype).eps / 2)
    assert isinstance(loss, Tensor) and isinstance(exact, Tensor)
    assert_within(loss, exact, budget.loss + 8 * budget.u * exact.abs(), "loss")


# Splits of the catalogue


@few
@given(rows, items, dims, dtypes, normalize, values, seeds)
def test_topk_of_parts_merges_to_the_whole(
    n: int, m: int, d: int, dtype: str, how: Any, kind: str, seed: int
) -> None:
    """The k best of each part, put together and sorted as the operator sorts: the same bits."""
    u, i, _, _ = problem(n, m, d, dtype, kind, seed)
    k = 1 + seed % m
    found = [
        (scores, ids + first)
        for first, last in borders(m, seed)
        if last > first
        for scores, ids in [ax.topk(u, i[first:last], min(k, last - first), normalize=how)]
    ]
    scores, ids = (torch.cat(part, dim=1) for part in zip(*found, strict=True))
    by_id = ids.argsort(dim=1)
    scores, ids = scores.gather(1, by_id), ids.gather(1, by_id)
    best = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    same_bits((scores.gather(1, best), ids.gather(1, best)), ax.topk(u, i, k, normalize=how))


@few
@given(rows, items, dims, dtypes, normalize, values, seeds)
def test_ranks_of_parts_add_up(
    n: int, m: int, d: int, dtype: str, how: str, kind: str, seed: int
) -> None:
    ops = torch.ops.adaptau
    u, i, _, _ = problem(n, m, d, dtype, kind, seed)
    sparse = csr(n, m, 0.1, seed)
    targets = tuple(torch.from_numpy(x).long() for x in (sparse.indptr, sparse.indices))
    scores = ops.target_scores(u, i, *targets, how)
    total = torch.ones_like(targets[1])
    for first, last in borders(m, seed):
        part = u, i[first:last], *targets, None, None, how
        total += ops.ranks(*part, target_scores=scores, first_item=first) - 1
    assert torch.equal(total, ax.ranks(u, i, targets, normalize=how))  # type: ignore[arg-type]


@few
@given(rows, items, dims, normalize, seeds)
def test_losses_of_parts_combine(n: int, m: int, d: int, how: str, seed: int) -> None:
    """Rows without a positive give the log of their candidates' sum: logsumexp over parts."""
    u, i, tau, _ = problem(n, m, d, "float32", "normal", seed)
    options: dict[str, Any] = {"normalize": how, "reduction": "none"}
    nobody = torch.full((n,), -1)
    parts = [
        ax.fused_adaptive_softmax(u, i[first:last], tau, target=nobody, **options)
        for first, last in borders(m, seed)
    ]
    combined = torch.logsumexp(torch.stack([x.double() for x in parts]), dim=0)  # type: ignore[union-attr]
    exact = reference.fused_adaptive_softmax(
        u.double(), i.double(), tau.double(), target=nobody, **options
    )
    assert isinstance(exact, Tensor)
    budget = LossBudget.of(torch.float32, u, i, tau, how, m)
    assert_within(combined, exact, budget.loss + 8 * budget.u * exact.abs(), "log of the sum")


# Threads and batches

OPERATORS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], list[Tensor]]] = {
    "fused_adaptive_softmax": lambda u, i, tau, target: loss_and_gradients(u, i, tau, target=target),
    "sampled_adaptive_softmax": lambda u, i, tau, target: [
        ax.sampled_adaptive_softmax(u, i, None, target, tau, n_negatives=33, seed=5, reduction="none")
    ],  # type: ignore[list-item]
    "topk": lambda u, i, tau, target: list(ax.topk(u, i, min(len(i), 20))),
    "ranks": lambda u, i, tau, target: [ax.ranks(u, i, (torch.arange(len(u) + 1), target))],
    "propagate": lambda u, i, tau, target: list(
        ax.BipartiteGraph((torch.arange(len(u) + 1), target), len(i)).propagate(u, i, 2)
    ),
    "dropout": lambda u, i, tau, target: [dropout(u, 0.3, torch.Generator().manual_seed(1))],
    "draw_negatives": lambda u, i, tau, target: [ax.draw_negatives(len(u), 7, len(i), 3)],
}


@pytest.mark.parametrize("name", OPERATORS)
@settings(few, max_examples=15)
@given(rows, items, dims, dtypes, seeds)
def test_any_number_of_threads_gives_the_same_bits(
    name: str, n: int, m: int, d: int, dtype: str, seed: int
) -> None:
    given = problem(n, m, d, dtype, "normal", seed)
    with threads(1):
        expected = OPERATORS[name](*given)
    for count in (2, 3, 4):
        with threads(count):
            same_bits(OPERATORS[name](*given), expected)


@few
@given(rows, items, dims, dtypes, normalize, seeds)
def test_users_do_not_see_each_other(n: int, m: int, d: int, dtype: str, how: Any, seed: int) -> None:
    """Any batch of the users has their rows: bits of scores and ids, budgets of losses and gradients."""
    u, i, tau, target = problem(n, m, d, dtype, "normal", seed)
    k, part = min(m, 9), slice(seed % n, None)
    same_bits(ax.topk(u[part], i, k, normalize=how), [x[part] for x in ax.topk(u, i, k, normalize=how)])
    options: dict[str, Any] = {"normalize": how, "reduction": "none"}
    alone = ax.fused_adaptive_softmax(u[part], i, tau[part], target=target[part], **options)
    together = ax.fused_adaptive_softmax(u, i, tau, target=target, **options)
    assert isinstance(alone, Tensor) and isinstance(together, Tensor)
    budget = LossBudget.of(tau.dtype, u, i, tau, how, m)
    limit = 2 * budget.loss + 16 * budget.u * together[part].double().abs()
    assert_within(alone, together[part], limit, "loss")


# Memory

LIBRARIES = ctypes.CDLL(None)  # all that are loaded
SANITIZERS_HEAP = "__sanitizer_get_current_allocated_bytes"


class Heap(ctypes.Structure):
    """`struct mallinfo2` of the C library."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
            "keepcost",
        )
    )  # fmt: skip


def heap_in_use() -> int:
    """Bytes that are allocated and not freed."""
    gc.collect()
    if hasattr(LIBRARIES, SANITIZERS_HEAP):
        look = getattr(LIBRARIES, SANITIZERS_HEAP)
        look.restype = ctypes.c_size_t
        return int(look())
    look = LIBRARIES.mallinfo2
    look.restype = Heap
    return int(look().uordblks)


@pytest.mark.skipif(not hasattr(LIBRARIES, "mallinfo2"), reason="glibc 2.33 counts the heap")
@pytest.mark.parametrize(
    ("name", "refused"),
    [(name, refused) for name in OPERATORS for refused in (False, True)][
        :-1
    ],  # the last takes no table
)
def test_calls_keep_no_memory(name: str, refused: bool) -> None:
    u, i, tau, target = problem(3, 50, 8, "float32", "normal", 1)
    users = u.long() if refused else u
    calls = 100

    def after_calls() -> int:
        raised = 0
        for _ in range(calls):
            try:
                OPERATORS[name](users, i, tau, target)
            except RuntimeError:
                raised += 1
        assert raised == (calls if refused else 0)
        return heap_in_use()

    with threads(1):
        in_use = [after_calls() for _ in range(5)]  # caches fill in one round or another
    assert min(after - before for before, after in pairwise(in_use)) < calls  # a byte a call
