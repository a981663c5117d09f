"""topk and ranks against their twins and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import adaptau_ext as ax
from adaptau_ext import reference
from adaptau_ext.ops import Normalize
from tests.budget import LossBudget, assert_same_ranking

SIZES = (0, 1, 3, 17, 63, 64, 65, 127, 300)
NORMALIZE = ("both", "user", "item", "none")


def random_csr(n_rows: int, n_columns: int, density: float, seed: int = 0) -> scipy.sparse.csr_array:
    rng = np.random.default_rng(seed)
    csr = scipy.sparse.csr_array(rng.random((n_rows, n_columns)) < density)
    csr.sort_indices()
    return csr


def score_budget(u: Tensor, i: Tensor, normalize: str) -> float:
    compute = torch.float64 if u.dtype == torch.float64 else torch.float32
    return LossBudget.of(compute, u, i, torch.ones(1), normalize, 1).logit_error


def check_topk(
    u: Tensor, i: Tensor, k: int, exclude: scipy.sparse.csr_array | None, normalize: str
) -> None:
    scores, ids = ax.topk(u, i, k, exclude=exclude, normalize=normalize)
    assert scores.shape == ids.shape == (u.shape[0], k)
    user, item = reference.normalized_pair(u.double(), i.double(), normalize)
    excluded = reference.csr_mask(exclude, u.shape[0], i.shape[0], u.device)
    assert_same_ranking(ids, scores, user @ item.T, ~excluded, score_budget(u, i, normalize))


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("n_items", [m for m in SIZES if m])
def test_topk_odd_shapes(n_items: int, d: int) -> None:
    for turn, n_rows in enumerate(SIZES):
        u, i = torch.randn(n_rows, d), torch.randn(n_items, d)
        exclude = random_csr(n_rows, n_items, 0.1) if turn % 2 and n_rows else None
        left = n_items if exclude is None else n_items - int(np.diff(exclude.indptr).max())
        for k in {1, left // 2, left} - {0}:
            if k <= left:
                check_topk(u, i, k, exclude, NORMALIZE[turn % 4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_topk_dtypes(dtype: torch.dtype, normalize: str) -> None:
    u, i = torch.randn(100, 64).to(dtype), torch.randn(2000, 64).to(dtype)
    for k in (1, 20, 1000):
        check_topk(u, i, k, random_csr(100, 2000, 0.05), normalize)


@pytest.mark.parametrize("n_rows", [1, 5, 100])
def test_order_is_total_with_ties_nan_and_infinities(n_rows: int) -> None:
    """Small integers: every score is exact, so ids must agree with a plain sort, ties by id."""
    u, i = torch.randint(-2, 3, (n_rows, 3)).float(), torch.randint(-2, 3, (700, 3)).float()
    i[5] = torch.nan
    i[600, 0] = torch.inf
    i[601, 0] = -torch.inf
    i[650] = -0.0
    exclude = random_csr(n_rows, 700, 0.1)
    for k in (1, 33, 400):
        scores, ids = ax.topk(u, i, k, exclude=exclude)
        expected_scores, expected_ids = reference.topk(u, i, k, exclude=exclude)
        assert torch.equal(ids, expected_ids)
        assert torch.equal(scores, expected_scores + 0.0) or scores.isnan().any()
    targets = random_csr(n_rows, 700, 0.02, seed=1)
    assert torch.equal(
        ax.ranks(u, i, targets, exclude=exclude), reference.ranks(u, i, targets, exclude=exclude)
    )


def test_topk_of_a_constant_catalogue_is_the_first_ids() -> None:
    ids = ax.topk(torch.ones(3, 4), torch.ones(5000, 4), 100)[1]
    assert torch.equal(ids, torch.arange(100).expand(3, 100))


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 5000, 8), (60, 300, 17), (130, 100, 64)])
def test_ranks_agree_with_topk(shape: tuple[int, int, int], dtype: torch.dtype, normalize: str) -> None:
    """A target's rank is its place in the full top-k: the two operators share one score and order."""
    n_rows, n_items, d = shape
    u, i = torch.randn(n_rows, d).to(dtype), torch.randn(n_items, d).to(dtype)
    i[1::7] = i[0]  # ties
    exclude = random_csr(n_rows, n_items, 0.2)
    targets = random_csr(n_rows, n_items, 0.05, seed=1)
    targets = scipy.sparse.csr_array((targets.astype(int) - targets.multiply(exclude)) > 0)
    targets.sort_indices()
    left = n_items - np.diff(exclude.indptr)
    ranks = ax.ranks(u, i, targets, exclude=exclude, normalize=normalize)
    expected = []
    for row in range(n_rows):
        only = exclude[[row]]
        order = ax.topk(u[row : row + 1], i, int(left[row]), exclude=only, normalize=normalize)[1][0]
        place = torch.empty(n_items, dtype=torch.int64)
        place[order] = torch.arange(1, int(left[row]) + 1)
        expected.append(place[targets.indices[targets.indptr[row] : targets.indptr[row + 1]]])
    assert torch.equal(ranks, torch.cat(expected))


def test_excluded_targets_are_ranked_among_the_rest() -> None:
    u, i = torch.ones(1, 1), torch.tensor([[5.0], [4.0], [3.0], [2.0]])
    targets = (torch.tensor([0, 2]), torch.tensor([1, 3]))
    exclude = (torch.tensor([0, 2]), torch.tensor([0, 1]))
    assert ax.ranks(u, i, targets, exclude=exclude).tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 5])
def test_targets_nothing_or_everything_stands_before(
    restore_threads: None, dtype: torch.dtype, threads: int
) -> None:
    """NaN, infinite and tied targets in every panel, users by groups and items by ranges."""
    torch.set_num_threads(threads)
    i = torch.randint(-2, 3, (9001, 2)).to(dtype)
    i[::7, 0], i[3::7, 0], i[5::7, 0] = torch.nan, torch.inf, -torch.inf
    u = torch.tensor([[1, 0], [0, 0], [torch.nan, 0], [-1, 1], [torch.inf, 1], [0, -0.0]], dtype=dtype)
    for n_rows in (1, 6, 49):
        rows = u[torch.arange(n_rows) % 6]
        targets, exclude = random_csr(n_rows, 9001, 0.02, seed=2), random_csr(n_rows, 9001, 0.3)
        expected = reference.ranks(rows, i, targets, exclude=exclude, normalize="none")
        got = ax.ranks(rows, i, targets, exclude=exclude, normalize="none")
        assert torch.equal(got, expected)


def test_ranks_of_ties_at_zero_while_subnormals_are_flushed() -> None:
    """The next number above zero is zero to such a thread."""
    targets = (torch.tensor([0, 2]), torch.tensor([40, 70]))
    if not torch.set_flush_denormal(True):
        pytest.skip("no flushing of subnormals here")
    try:
        for dtype in (torch.float32, torch.float64):
            items = torch.ones(100, 3, dtype=dtype)
            assert ax.ranks(torch.zeros(1, 3, dtype=dtype), items, targets).tolist() == [41, 71]
    finally:
        torch.set_flush_denormal(False)


def test_users_of_one_group_have_any_number_of_targets() -> None:
    u, i = torch.randint(-3, 4, (60, 4)).float(), torch.randint(-3, 4, (150, 4)).float()
    counts = torch.arange(60) * 2 % 101  # 0 to 100
    indices = torch.cat([torch.randperm(150)[:n].sort()[0] for n in counts])
    targets = (torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]), indices)
    exclude = random_csr(60, 150, 0.5)
    assert torch.equal(
        ax.ranks(u, i, targets, exclude=exclude, normalize="none"),
        reference.ranks(u, i, targets, exclude=exclude, normalize="none"),
    )


@pytest.mark.parametrize("n_rows", [0, 1, 50])
def test_ranks_of_nothing(n_rows: int) -> None:
    empty = (torch.zeros(n_rows + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert ax.ranks(torch.randn(n_rows, 4), torch.randn(9, 4), empty).shape == (0,)


def test_bitwise_the_same_on_any_number_of_threads(restore_threads: None) -> None:
    for n_rows in (1, 60, 500):
        u, i = torch.randn(n_rows, 33), torch.randn(9000, 33)
        targets = random_csr(n_rows, 9000, 0.001)
        results = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append((*ax.topk(u, i, 50), ax.ranks(u, i, targets)))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_strides_do_not_matter() -> None:
    u, i = torch.randn(33, 70).T, torch.randn(300, 66)[:, ::2]
    targets = random_csr(70, 300, 0.05)
    for a, b in zip(ax.topk(u, i, 9), ax.topk(u.contiguous(), i.contiguous(), 9), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ax.ranks(u, i, targets), ax.ranks(u.contiguous(), i.contiguous(), targets))


def test_exclusion_forms_are_equivalent() -> None:
    u, i = torch.randn(10, 8), torch.randn(50, 8)
    csr = random_csr(10, 50, 0.2)
    expected = ax.topk(u, i, 5, exclude=csr)[1]
    arrays = (csr.indptr, csr.indices)
    tensors = tuple(torch.from_numpy(part) for part in arrays)
    for form in (scipy.sparse.csr_matrix(csr), arrays, tensors):
        assert torch.equal(ax.topk(u, i, 5, exclude=form)[1], expected)


@pytest.mark.parametrize("normalize", ["both", "user", "item", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 40, 5), (7, 5000, 33), (100, 3000, 64)], ids=str)
def test_an_index_gives_the_bits_of_topk(
    shape: tuple[int, int, int], dtype: torch.dtype, normalize: Normalize
) -> None:
    n_users, n_items, d = shape
    u = torch.randn(n_users, d).to(dtype)
    i = (torch.randn(n_items, d) + 3 * torch.randn(d)).to(dtype)
    index = ax.ItemIndex(i, normalize=normalize)
    gone = torch.arange(0, n_items, 3)
    exclude = (torch.arange(n_users + 1) * gone.numel(), gone.repeat(n_users))
    for k, options in ((1, {}), (20, {"exclude": exclude}), (26, {})):
        expected = ax.topk(u, i, k, normalize=normalize, **options)
        for found, wanted in zip(index.topk(u, k, **options), expected, strict=True):
            assert torch.equal(found, wanted)
    assert len(index) == n_items
    assert repr(index).startswith(f"ItemIndex({n_items} x {d}")


def test_an_index_of_another_catalogue_is_refused() -> None:
    u, i = torch.randn(40, 16), torch.randn(3000, 16)
    packed = torch.ops.adaptau.pack_items(i)
    if packed[0].numel() == 0:
        pytest.skip("this level has no bytes")
    with pytest.raises(RuntimeError, match="must be what pack_items made of i"):
        torch.ops.adaptau.topk(u, i[:2000], 5, None, None, "none", *packed)
    with pytest.raises(RuntimeError, match="must be what pack_items made of i"):
        torch.ops.adaptau.topk(u, i, 5, None, None, "none", packed[0], None, packed[2])
    with pytest.raises(RuntimeError, match="normalise i before packing it"):
        torch.ops.adaptau.topk(u, i, 5, None, None, "both", *packed)
    with pytest.raises(RuntimeError, match='got "cosine"'):
        ax.ItemIndex(i, normalize="cosine")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="u and i must have the same dtype"):
        ax.ItemIndex(i).topk(u.double(), 3)
